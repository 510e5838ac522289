// --- the text
// Characters that several tokens make together: each stands in the token that ends it, and those before show
// that they are a part. What is no UTF-8 even together has no piece.
const PART = '\ufffe', pieces = new Map();
function joinParts(first) {
  let end = first;
  const bytes = [];
  for (; end < ids.length && Array.isArray(data.texts[ids[end]]); ++end) bytes.push(...data.texts[ids[end]]);
  let whole;
  try { whole = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(Uint8Array.from(bytes)); } catch { return; }
  const bytesOf = c => c < '\u0080' ? 1 : c < '\u0800' ? 2 : c.length > 1 ? 4 : 3;
  const characters = whole[Symbol.iterator]();
  let next = characters.next();
  for (let token = first, read = 0, told = 0; token < end; ++token) {
    read += data.texts[ids[token]].length;
    let piece = '';
    for (; !next.done && told + bytesOf(next.value) <= read; next = characters.next()) {
      told += bytesOf(next.value);
      piece += next.value;
    }
    pieces.set(token, told < read ? piece + PART : piece);
  }
}

// What a reader would not see, or would be fooled by: controls, zero width, direction, lone surrogates.
const ODD = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/u;
function fill(span, id, piece) {
  const text = piece ?? data.texts[id];
  if (Array.isArray(text)) {
    span.append(element('span', 'odd', text.map(b => '\\x' + b.toString(16).padStart(2, '0')).join('')));
    return;
  }
  const blank = /^[ \t\n]+$/.test(text);
  let plain = '';
  const odd = (sign, after) => {
    if (plain) span.append(plain);
    span.append(element('span', 'odd', sign));
    plain = after;
  };
  for (const c of text) {
    if (c === '\n') odd('\u21b5', '\n');
    else if (c === '\t') odd('\u2192', '\t');
    else if (c === ' ' && blank) odd('\u00b7', '');
    else if (c === PART) odd('\u2025', '');
    else if (ODD.test(c)) odd('\u27e8' + c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0') + '\u27e9', '');
    else plain += c;
  }
  if (plain) span.append(plain);
}

const spans = [];
function classesOf(token) {
  let classes = 't';
  if (isLater(token)) classes += ' later';
  else if (dropped && !isNew(token)) classes += ' s' + levelOf(shares[token]);
  if (special.has(ids[token])) classes += ' special';
  if (token >= prompt) classes += ' answer';
  if (token === cursor) classes += ' at';
  return classes;
}
function shade(token) {
  const classes = classesOf(token);
  if (spans[token].className !== classes) spans[token].className = classes;
}

// Slices of the text, so that the page answers meanwhile; blocks end with a line, so that those out of sight
// need not be laid out.
let block = null, blockTokens = 0;
function build() {
  const end = Math.min(ids.length, spans.length + 4000);
  while (spans.length < end) {
    const token = spans.length;
    if (!block) { block = element('div', 'block'); blockTokens = 0; $('text').append(block); }
    const span = element('span', '');
    span.dataset.token = token;
    if (Array.isArray(data.texts[ids[token]]) && !Array.isArray(data.texts[ids[token - 1]])) joinParts(token);
    fill(span, ids[token], pieces.get(token));
    spans.push(span);
    shade(token);
    block.append(span);
    const text = data.texts[ids[token]];
    if (++blockTokens >= 200 && typeof text === 'string' && text.endsWith('\n')) block = null;
  }
  if (end < ids.length) setTimeout(build, 0);
  else document.documentElement.dataset.ready = 'yes';
}
