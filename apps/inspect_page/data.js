'use strict';
// --- what the page is about (apps/inspect_html.cc)
const data = JSON.parse(document.getElementById('data').textContent);
const heads = data.kv_heads, all = data.layers * heads, prompt = data.ids.length;
const special = new Set(data.special);
// What one policy made of the text. Two of them stand beside each other; what is pointed at is of one.
const sides = [data, data.other].filter(Boolean).map((from, index) => ({
  index, policy: from.policy, name: from.policy.split(':')[0], steps: from.steps, cycles: from.cycles, step: from.steps.length - 1,
  resident: from.resident_tokens, ids: data.ids.concat(from.generated), dropped: from.steps.length > 0,
  decoded: new Map(),  // every 16th step, and the one in view: going back decodes 15 at most
  kept: null,          // of the step in view; null: everything stays
  shares: null,        // by token: of the chosen heads that keep it
  counts: null,        // by token: of all heads
  cells: [],           // of the map: {tokens, agreement, common}
  spans: [], pieces: new Map(), block: null,
}));
const two = sides.length > 1, length = Math.max(...sides.map(side => side.ids.length));
if (two && sides[0].name === sides[1].name) sides.forEach(side => { side.name = side.policy; });
let front = sides.find(side => side.dropped) ?? sides[0];  // whose map is shown
const $ = id => document.getElementById(id);
const number = n => n.toLocaleString('en');
const narrow = matchMedia('(max-width: 640px)');  // as in page.css
const percent = share => (100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0) + ' %';

function element(tag, classes, text) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined) made.textContent = text;  // never as HTML: what is shown comes from outside
  return made;
}

// --- which tokens each head keeps, by head (apps/kept_code.h)
function decode(step, before) {
  const raw = atob(step.kept);
  let at = 0;
  const byte = () => raw.charCodeAt(at++);
  const next = () => {
    let value = 0, scale = 1, part;
    do { part = byte(); value += (part & 127) * scale; scale *= 128; } while (part > 127);
    return value;
  };
  const lists = [];
  for (let h = 0; h < all; ++h) {
    const form = byte(), count = next(), tokens = [];
    const old = before ? before.lists[h] : [];
    const put = place => {
      if (form < 2) tokens.push(place);
      else tokens.push(place < old.length ? old[place] : before.read + place - old.length);
    };
    if (form & 1) {
      for (let i = 0; i < count; ++i) {
        for (let bits = byte(), place = 8 * i; bits; bits >>= 1, ++place) if (bits & 1) put(place);
      }
    } else {
      for (let i = 0, place = 0; i < count; i += 2) {
        place += next();
        for (let run = next(); run > 0; --run) put(place++);
      }
    }
    lists.push(Uint32Array.from(tokens));
  }
  return {lists, read: step.read};
}

function keptAt(side, index) {
  const {decoded, steps} = side;
  let from = index;
  while (from >= 0 && !decoded.has(from)) --from;
  for (let i = from + 1; i <= index; ++i) {
    decoded.set(i, decode(steps[i], i > 0 ? decoded.get(i - 1) : null));
    if (i > from + 1 && (i - 1) % 16 !== 0) decoded.delete(i - 1);
  }
  for (const i of decoded.keys()) if (i !== index && i % 16 !== 0) decoded.delete(i);
  return decoded.get(index);
}
