'use strict';
// --- what the page is about (apps/inspect_html.cc)
const data = JSON.parse(document.getElementById('data').textContent);
const heads = data.kv_heads, all = data.layers * heads, steps = data.steps;
const ids = data.ids.concat(data.generated), prompt = data.ids.length;
const special = new Set(data.special);
const dropped = steps.length > 0;  // something was
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

const decoded = new Map();  // every 16th step, and the one in view: going back decodes 15 at most
function keptAt(index) {
  let from = index;
  while (from >= 0 && !decoded.has(from)) --from;
  for (let i = from + 1; i <= index; ++i) {
    decoded.set(i, decode(steps[i], i > 0 ? decoded.get(i - 1) : null));
    if (i > from + 1 && (i - 1) % 16 !== 0) decoded.delete(i - 1);
  }
  for (const i of decoded.keys()) if (i !== index && i % 16 !== 0) decoded.delete(i);
  return decoded.get(index);
}
