// --- the text
// Characters that several tokens make together: each stands in the token that ends it, and those before show
// that they are a part. What is no UTF-8 even together has no piece.
const PART = '\ufffe';
function joinParts({ids, pieces}, first) {
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

function classesOf(side, token) {
  let classes = 't';
  if (isLater(side, token)) classes += ' later';
  else if (side.dropped && !isNew(side, token)) classes += ' s' + levelOf(side.shares[token]);
  if (special.has(side.ids[token])) classes += ' special';
  if (token >= prompt) classes += ' answer';
  if (token === cursor) classes += ' at';
  return classes;
}
function shade(side, token) {
  const classes = classesOf(side, token), span = side.spans[token];
  if (span.className !== classes) span.className = classes;
}

// Slices of the text, so that the page answers meanwhile; blocks end with a line, so that those out of sight
// need not be laid out. The same passage of two sides stands in one row.
let row = null, rowTokens = 0, built = 0;
function addToken(side, token) {
  const {ids} = side, span = element('span', '');
  span.dataset.token = token;
  if (Array.isArray(data.texts[ids[token]]) && !Array.isArray(data.texts[ids[token - 1]])) joinParts(side, token);
  fill(span, ids[token], side.pieces.get(token));
  side.spans.push(span);
  shade(side, token);
  side.block.append(span);
}
function build() {
  const end = Math.min(length, built + 4000 / sides.length);
  for (; built < end; ++built) {
    if (!row) {
      row = element('div', two ? 'pair' : 'block');
      rowTokens = 0;
      for (const side of sides) {
        side.block = two ? element('div', 'block') : row;
        if (two) row.append(side.block);
      }
      $('text').append(row);
    }
    for (const side of sides) if (built < side.ids.length) addToken(side, built);
    const text = data.texts[data.ids[built]];
    if (++rowTokens >= 200 && typeof text === 'string' && text.endsWith('\n')) row = null;
  }
  if (end < length) setTimeout(build, 0);
  else document.documentElement.dataset.ready = 'yes';
}
