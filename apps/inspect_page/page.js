// --- what is in view
let kept = null;                       // of this step; null: everything stays
let chosen = {layer: -1, head: -1};    // -1: all of them
let measure = 'agreement';
let shares = new Float32Array(ids.length);  // of the chosen heads that keep a token
let counts = new Uint32Array(ids.length);   // of all heads
let cells = [];                             // of the map: {tokens, agreement}
let cursor = -1;                            // the token that was tapped or gone to
const isChosen = h => (chosen.layer < 0 || Math.floor(h / heads) === chosen.layer) &&
                      (chosen.head < 0 || h % heads === chosen.head);
const chosenCount = () => (chosen.layer < 0 ? data.layers : 1) * (chosen.head < 0 ? heads : 1);
// 0 of none, 1 to 7 of some, 8 of all.
const levelOf = share => share <= 0 ? 0 : share > 0.9999 ? 8 : 1 + Math.floor(share * 7);

function countHeads() {
  counts = new Uint32Array(ids.length).fill(kept ? 0 : all);
  if (!kept) return;
  for (const list of kept.lists) for (const token of list) ++counts[token];
  cells = kept.lists.map(list => {
    let others = 0;
    for (const token of list) others += counts[token] - 1;
    return {tokens: list.length, agreement: list.length && all > 1 ? others / list.length / (all - 1) : 1};
  });
}

function countChosen() {
  shares = new Float32Array(ids.length).fill(kept ? 0 : 1);
  if (!kept) return;
  const one = 1 / chosenCount();
  kept.lists.forEach((list, h) => { if (isChosen(h)) for (const token of list) shares[token] += one; });
}

// A token's place in a head's ascending list.
function keeps(list, token) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < token) low = middle + 1; else high = middle;
  }
  return list[low] === token;
}
const isLater = token => kept !== null && token >= kept.read && (token < prompt || data.cycles > 0);
// Of an answer after the last compression: no policy has looked at it.
const isNew = token => token >= prompt && !isLater(token) && counts[token] === 0;

// --- the map
const buttons = [];  // cells by head, then names of layers and heads
function choose(layer, head) {
  const same = chosen.layer === layer && chosen.head === head;
  chosen = same ? {layer: -1, head: -1} : {layer, head};
  countChosen();
  draw();
}
function button(classes, text, layer, head, label) {
  const made = element('button', classes, text);
  made.type = 'button';
  made.tabIndex = -1;
  made.style.setProperty('--l', layer);
  made.style.setProperty('--h', head);
  made.dataset.layer = layer;
  made.dataset.head = head;
  if (label) made.setAttribute('aria-label', label);
  made.addEventListener('click', () => choose(layer, head));
  $('map').append(made);
  return made;
}
function buildMap() {
  button('name corner', 'all', -1, -1, 'all layers and heads').tabIndex = 0;
  for (let h = 0; h < heads; ++h) button('name head', 'h' + h, -1, h, 'KV head ' + h + ' of all layers');
  for (let l = 0; l < data.layers; ++l) {
    button('name layer', l, l, -1, 'layer ' + l);
    for (let h = 0; h < heads; ++h) buttons.push(button('cell', '', l, h));
  }
  $('map').addEventListener('keydown', event => {
    // Layers go down, on narrow pages across.
    const across = narrow.matches;
    const step = {ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1]}[event.key];
    if (event.key === 'Escape') choose(-1, -1);
    if (!step) return;
    event.preventDefault();
    const at = event.target.dataset, clamp = (n, end) => Math.max(-1, Math.min(end - 1, n));
    const layer = clamp(+at.layer + step[across ? 1 : 0], data.layers), head = clamp(+at.head + step[across ? 0 : 1], heads);
    const to = $('map').querySelector(`[data-layer="${layer}"][data-head="${head}"]`);
    event.target.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
}
function drawMap() {
  for (const name of $('map').querySelectorAll('.name')) {
    const on = +name.dataset.layer === chosen.layer && +name.dataset.head === chosen.head;
    name.classList.toggle('chosen', on);
    name.setAttribute('aria-pressed', on);
  }
  const values = cells.map(cell => measure === 'count' ? cell.tokens : cell.agreement);
  const least = Math.min(...values), most = Math.max(...values);
  buttons.forEach((cell, h) => {
    const level = most > least ? 1 + Math.min(7, Math.floor((values[h] - least) / (most - least) * 8)) : 4;
    const one = chosen.layer >= 0 && chosen.head >= 0 && isChosen(h);
    cell.className = 'cell s' + level + (one ? ' chosen' : '') + (cursorKept(h) ? ' has' : '');
    cell.setAttribute('aria-pressed', one);
    const words = `layer ${Math.floor(h / heads)}, KV head ${h % heads}: keeps ${number(cells[h].tokens)} tokens; ` +
      `another head keeps ${percent(cells[h].agreement)} of them, in the mean`;
    cell.title = words;
    cell.setAttribute('aria-label', words);
  });
  const show = value => measure === 'count' ? number(value) : percent(value);
  $('map-legend').replaceChildren(...(most > least ?
    [element('span', 'swatch s1', show(least)), 'to ', element('span', 'swatch s8', show(most))] :
    ['every head: ', element('span', 'swatch s4', show(most))]));
  $('map-help').textContent = measure === 'count' ? 'Tokens that this head keeps.' :
    'Of the tokens that this head keeps: the share that another head keeps too, in the mean.';
}
let pointed = -1;  // the token under the pointer
const shown = () => pointed >= 0 ? pointed : cursor;
const cursorKept = h => kept !== null && shown() >= 0 && keeps(kept.lists[h], shown());

// --- one token
function drawToken() {
  const token = shown(), footer = $('token');
  if (token < 0) {
    footer.replaceChildren(element('span', 'hint', 'Point at a token or tap it: what it is and which heads keep it.'));
  } else {
    const sample = element('span', 'sample');
    fill(sample, ids[token]);
    const place = token < prompt ? `token ${number(token)}` : `answer ${number(token - prompt)}`;
    const state = isLater(token) ? laterWords() : isNew(token) ? 'written by the model' :
      `kept by ${number(counts[token])} of ${number(all)} heads (${percent(counts[token] / all)})`;
    footer.replaceChildren(element('span', '', place), ' ', element('span', '', `id ${ids[token]}`), ' ', sample, ' ',
                           element('strong', '', dropped ? state : 'stays'));
  }
  if (kept) buttons.forEach((cell, h) => cell.classList.toggle('has', cursorKept(h)));
}
const isLast = () => +$('step').value === steps.length - 1;
const laterWords = () => isLast() ? 'read after the last distillation: stays' : 'not read yet';
function goTo(token, scroll) {
  const before = cursor;
  cursor = token;
  if (before >= 0 && spans[before]) shade(before);
  if (cursor >= 0 && spans[cursor]) {
    shade(cursor);
    if (scroll) spans[cursor].scrollIntoView({block: 'center'});
  }
  drawToken();
  drawOverview();
}
function bindText() {
  const tokenOf = event => {
    const span = event.target.closest('.t');
    return span ? +span.dataset.token : -1;
  };
  const point = token => { if (token !== pointed) { pointed = token; drawToken(); } };
  $('text').addEventListener('pointerover', event => { if (event.pointerType === 'mouse') point(tokenOf(event)); });
  $('text').addEventListener('pointerleave', () => point(-1));
  $('text').addEventListener('click', event => { const token = tokenOf(event); goTo(token === cursor ? -1 : token); });
  $('text').addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10}[event.key];
    if (event.key === 'Escape') goTo(-1);
    if (!step || !spans.length) return;
    event.preventDefault();
    goTo(Math.max(0, Math.min(spans.length - 1, cursor < 0 ? 0 : cursor + step)), true);
  });
}

// --- the whole text in one strip: how much of each stretch stays
function drawOverview() {
  const canvas = $('overview'), ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, canvas.clientWidth), height = 40;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext('2d'), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  const columns = Math.min(width, ids.length), wide = width / columns;
  for (let x = 0; x < columns; ++x) {
    const first = Math.floor(x * ids.length / columns), end = Math.max(first + 1, Math.floor((x + 1) * ids.length / columns));
    let sum = 0, later = 0;
    for (let token = first; token < end; ++token) { sum += shares[token]; later += isLater(token); }
    const share = sum / (end - first);
    pen.fillStyle = style.getPropertyValue(later * 2 > end - first ? '--line' : '--s8');
    const tall = later * 2 > end - first ? 4 : share * (height - 2);
    pen.fillRect(x * wide, height - tall, Math.max(wide, 1), tall);
  }
  if (cursor >= 0) {
    pen.fillStyle = style.getPropertyValue('--mark');
    pen.fillRect(cursor / ids.length * width, 0, 2, height);
  }
}

// --- the rest
function drawLegend() {
  const swatch = (classes, text) => element('span', 'swatch ' + classes, text);
  const count = chosenCount(), parts = [];
  if (!dropped) return;
  if (count === 1) {
    parts.push(swatch('s0', 'dropped'), swatch('s8', 'kept'));
  } else {
    parts.push(swatch('s0', 'dropped by all'), 'kept by ');
    for (const level of [1, 3, 5, 7, 8]) {
      parts.push(swatch('s' + level, level === 1 ? 'some' : level === 8 ? 'all' : percent((level - 1) / 7) + '+'));
    }
  }
  if (ids.length > 0 && isLater(ids.length - 1)) parts.push(swatch('later', laterWords()));
  if (data.generated.length > 0) parts.push(swatch('answer', 'answer'));
  $('legend').replaceChildren(...parts);
}
function drawShowing() {
  const {layer, head} = chosen;
  const who = layer < 0 && head < 0 ? `All ${number(all)} heads (${data.layers} layers, ${heads} KV heads each): the darker, the more of them keep the token.` :
    layer < 0 ? `KV head ${head} of all ${data.layers} layers.` : head < 0 ? `Layer ${layer}, all ${heads} KV heads.` :
    `Layer ${layer}, KV head ${head}: keeps ${number(cells[layer * heads + head].tokens)} tokens.`;
  const dark = matchMedia('(prefers-color-scheme: dark)').matches && !matchMedia('print').matches;
  $('showing').textContent = dropped ? (dark ? who.replace('darker', 'brighter') : who) : '';
}
function drawStep() {
  const index = +$('step').value, step = steps[index];
  if (!step) return;
  const least = Math.min(...cells.map(cell => cell.tokens)), most = Math.max(...cells.map(cell => cell.tokens));
  const each = least === most ? number(least) : `${number(least)} to ${number(most)}`;
  const stay = `${each} tokens in each head`;
  $('step-name').textContent = step.cycle > 0 ?
    `distillation ${number(step.cycle)} of ${number(data.cycles)}: ${stay} of ${number(step.read)} read` : `at the end: ${stay}`;
  $('back').disabled = index === 0;
  $('on').disabled = isLast();
}
function draw() {
  if (kept) drawMap();
  drawShowing();
  drawLegend();
  for (let token = 0; token < spans.length; ++token) shade(token);
  drawOverview();
  drawToken();
}
function showStep() {
  kept = dropped ? keptAt(+$('step').value) : null;
  countHeads();
  countChosen();
  drawStep();
  draw();
}

function describe() {
  const name = data.policy.split(':')[0];
  let words = `${number(prompt)} tokens, policy ${name}. `;
  if (!dropped) {
    words += 'Nothing was dropped: every token stays in every layer and KV head.';
  } else {
    const counted = cells.map(cell => cell.tokens), least = Math.min(...counted), most = Math.max(...counted);
    const each = least === most ? number(least) : `${number(least)} to ${number(most)}`;
    words += `Each layer and KV head keeps ${each} of them`;
    words += data.cycles > 0 ? ` after ${number(data.cycles)} distillation${data.cycles > 1 ? 's' : ''}, and what came after the last.` : '.';
    let none = 0;
    for (let token = 0; token < prompt; ++token) none += counts[token] === 0 && !isLater(token);
    words += ` ${number(none)} tokens are kept by no head.`;
  }
  $('summary').textContent = words;
  document.title = `palimpsest inspect: ${name}, ${number(prompt)} tokens`;
  const fact = (key, value, code) => {
    const place = element('dd');
    place.append(code ? element('code', '', value) : value);
    $('facts').append(element('dt', '', key), place);
  };
  fact('model', `${data.model}: ${data.layers} layers, ${heads} KV heads each`);
  fact('policy', data.policy, true);
  if (dropped) fact('stays', `${number(Math.round(data.resident_tokens))} of ${number(prompt)} tokens when the answer begins, mean of layers and KV heads`);
  if (data.cycles > steps.length) fact('distillations', `${number(data.cycles)}; ${number(steps.length)} of them are drawn`);
  fact('command', data.command, true);
  $('about').open = !narrow.matches;
}
