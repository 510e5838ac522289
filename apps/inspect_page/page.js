// --- what is in view
let chosen = {layer: -1, head: -1};    // -1: all of them
let measure = two ? 'common' : 'agreement';
let cursor = -1;                       // the token that was tapped or gone to
const isChosen = h => (chosen.layer < 0 || Math.floor(h / heads) === chosen.layer) &&
                      (chosen.head < 0 || h % heads === chosen.head);
const chosenCount = () => (chosen.layer < 0 ? data.layers : 1) * (chosen.head < 0 ? heads : 1);
// 0 of none, 1 to 7 of some, 8 of all.
const levelOf = share => share <= 0 ? 0 : share > 0.9999 ? 8 : 1 + Math.floor(share * 7);

function countHeads(side) {
  const {kept, ids} = side, counts = side.counts = new Uint32Array(ids.length).fill(kept ? 0 : all);
  side.cells = [];
  if (!kept) return;
  for (const list of kept.lists) for (const token of list) ++counts[token];
  side.cells = kept.lists.map(list => {
    let others = 0;
    for (const token of list) others += counts[token] - 1;
    return {tokens: list.length, agreement: list.length && all > 1 ? others / list.length / (all - 1) : 1, common: 1};
  });
}
// Of what a head keeps: the share that it keeps under the other policy too.
function countCommon() {
  for (const side of sides) {
    const other = sides[1 - side.index];
    if (!two || !side.kept) continue;
    side.kept.lists.forEach((list, h) => {
      let common = 0;
      for (const token of list) common += !other.kept || keeps(other.kept.lists[h], token);
      side.cells[h].common = list.length ? common / list.length : 1;
    });
  }
}

function countChosen(side) {
  const {kept, ids} = side, shares = side.shares = new Float32Array(ids.length).fill(kept ? 0 : 1);
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
const isLater = (side, token) => side.kept !== null && token >= side.kept.read && (token < prompt || side.cycles > 0);
// Of an answer after the last compression: no policy has looked at it.
const isNew = (side, token) => token >= prompt && !isLater(side, token) && side.counts[token] === 0;

// --- the map
const buttons = [];  // cells by head, then names of layers and heads
function choose(layer, head) {
  const same = chosen.layer === layer && chosen.head === head;
  chosen = same ? {layer: -1, head: -1} : {layer, head};
  sides.forEach(countChosen);
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
  const cells = front.cells, values = cells.map(cell => measure === 'count' ? cell.tokens : cell[measure]);
  const least = Math.min(...values), most = Math.max(...values);
  buttons.forEach((cell, h) => {
    const level = most > least ? 1 + Math.min(7, Math.floor((values[h] - least) / (most - least) * 8)) : 4;
    const one = chosen.layer >= 0 && chosen.head >= 0 && isChosen(h);
    cell.className = 'cell s' + level + (one ? ' chosen' : '') + (cursorKept(h) ? ' has' : '');
    cell.setAttribute('aria-pressed', one);
    const words = `layer ${Math.floor(h / heads)}, KV head ${h % heads}: keeps ${number(cells[h].tokens)} tokens; ` +
      `another head keeps ${percent(cells[h].agreement)} of them, in the mean` +
      (two ? `; with ${sides[1 - front.index].name} it keeps ${percent(cells[h].common)} of them` : '');
    cell.title = words;
    cell.setAttribute('aria-label', words);
  });
  const show = value => measure === 'count' ? number(value) : percent(value);
  $('map-legend').replaceChildren(...(most > least ?
    [element('span', 'swatch s1', show(least)), 'to ', element('span', 'swatch s8', show(most))] :
    ['every head: ', element('span', 'swatch s4', show(most))]));
  $('map-help').textContent = measure === 'count' ? 'Tokens that this head keeps.' : measure === 'common' ?
    `Of the tokens that this head keeps with ${front.name}: the share that it keeps with ${sides[1 - front.index].name} too.` :
    'Of the tokens that this head keeps: the share that another head keeps too, in the mean.';
}
let pointed = -1;  // the token under the pointer
const shown = () => pointed >= 0 ? pointed : cursor;
const cursorKept = h => front.kept !== null && shown() >= 0 && keeps(front.kept.lists[h], shown());

// --- one token
const stateOf = (side, token) => token >= side.ids.length ? 'not there' : isLater(side, token) ? laterWords(side) :
  isNew(side, token) ? 'written by the model' : !side.dropped ? 'stays' :
  `kept by ${number(side.counts[token])} of ${number(all)} heads (${percent(side.counts[token] / all)})`;
function drawToken() {
  const token = shown(), footer = $('token'), side = token < front.ids.length ? front : sides[1 - front.index];
  if (token < 0) {
    footer.replaceChildren(element('span', 'hint', 'Point at a token or tap it: what it is and which heads keep it.'));
  } else {
    const sample = element('span', 'sample');
    fill(sample, side.ids[token]);
    const place = token < prompt ? `token ${number(token)}` : `answer ${number(token - prompt)}`;
    const states = sides.map(one => element('strong', '', (two ? one.name + ': ' : '') + stateOf(one, token)));
    footer.replaceChildren(element('span', '', place), ' ', element('span', '', `id ${side.ids[token]}`), ' ', sample, ' ', ...states);
  }
  if (front.kept) buttons.forEach((cell, h) => cell.classList.toggle('has', cursorKept(h)));
}
const isLast = side => side.step === side.steps.length - 1;
const laterWords = side => isLast(side) ? 'read after the last distillation: stays' : 'not read yet';
function goTo(token, scroll) {
  const before = cursor;
  cursor = token;
  for (const side of sides) {
    for (const at of [before, cursor]) if (side.spans[at]) shade(side, at);
  }
  const span = front.spans[cursor] ?? sides[0].spans[cursor];
  if (span && scroll) span.scrollIntoView({block: 'center'});
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
    const spans = front.spans.length;
    if (!step || !spans) return;
    event.preventDefault();
    goTo(Math.max(0, Math.min(spans - 1, cursor < 0 ? 0 : cursor + step)), true);
  });
}

// --- the whole text in one strip: how much of each stretch stays; of two policies the first up, the second down
function drawOverview() {
  const canvas = $('overview'), ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, canvas.clientWidth), height = 40, room = two ? height / 2 - 1 : height;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext('2d'), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  const columns = Math.min(width, length), wide = width / columns;
  for (const side of sides) {
    for (let x = 0; x < columns; ++x) {
      const first = Math.floor(x * length / columns), end = Math.max(first + 1, Math.floor((x + 1) * length / columns));
      let sum = 0, later = 0;
      for (let token = first; token < Math.min(end, side.ids.length); ++token) { sum += side.shares[token]; later += isLater(side, token); }
      const share = sum / (end - first);
      pen.fillStyle = style.getPropertyValue(later * 2 > end - first ? '--line' : '--s8');
      const tall = later * 2 > end - first ? 4 : share * (room - 2);
      pen.fillRect(x * wide, side.index > 0 ? height - room : room - tall, Math.max(wide, 1), tall);
    }
  }
  if (cursor >= 0) {
    pen.fillStyle = style.getPropertyValue('--mark');
    pen.fillRect(cursor / length * width, 0, 2, height);
  }
}

// --- the rest
function drawLegend() {
  const swatch = (classes, text) => element('span', 'swatch ' + classes, text);
  const count = chosenCount(), parts = [];
  if (!sides.some(side => side.dropped)) return;
  if (count === 1) {
    parts.push(swatch('s0', 'dropped'), swatch('s8', 'kept'));
  } else {
    parts.push(swatch('s0', 'dropped by all'), 'kept by ');
    for (const level of [1, 3, 5, 7, 8]) {
      parts.push(swatch('s' + level, level === 1 ? 'some' : level === 8 ? 'all' : percent((level - 1) / 7) + '+'));
    }
  }
  const later = sides.find(side => side.ids.length > 0 && isLater(side, side.ids.length - 1));
  if (later) parts.push(swatch('later', laterWords(later)));
  if (sides.some(side => side.ids.length > prompt)) parts.push(swatch('answer', 'answer'));
  $('legend').replaceChildren(...parts);
}
function drawShowing() {
  const {layer, head} = chosen, one = layer >= 0 && head >= 0 ? layer * heads + head : -1;
  const tokens = sides.filter(side => side.kept && one >= 0).map(side => number(side.cells[one].tokens)).join(' and ');
  const who = layer < 0 && head < 0 ? `All ${number(all)} heads (${data.layers} layers, ${heads} KV heads each): the darker, the more of them keep the token.` :
    layer < 0 ? `KV head ${head} of all ${data.layers} layers.` : head < 0 ? `Layer ${layer}, all ${heads} KV heads.` :
    `Layer ${layer}, KV head ${head}: keeps ${tokens} tokens.`;
  const dark = matchMedia('(prefers-color-scheme: dark)').matches && !matchMedia('print').matches;
  $('showing').textContent = sides.some(side => side.dropped) ? (dark ? who.replace('darker', 'brighter') : who) : '';
}
function rangeOf(side) {
  const counted = side.cells.map(cell => cell.tokens), least = Math.min(...counted), most = Math.max(...counted);
  return least === most ? number(least) : `${number(least)} to ${number(most)}`;
}
function drawStep() {
  const step = front.steps[front.step];
  $('steps').hidden = front.steps.length < 2;
  if (!step) return;
  $('step').max = front.steps.length - 1;
  $('step').value = front.step;
  const stay = `${rangeOf(front)} tokens in each head`;
  $('step-name').textContent = step.cycle > 0 ?
    `distillation ${number(step.cycle)} of ${number(front.cycles)}: ${stay} of ${number(step.read)} read` : `at the end: ${stay}`;
  $('back').disabled = front.step === 0;
  $('on').disabled = isLast(front);
}
function draw() {
  if (front.kept) drawMap();
  drawShowing();
  drawLegend();
  for (const side of sides) for (let token = 0; token < side.spans.length; ++token) shade(side, token);
  drawOverview();
  drawToken();
}
function showStep() {
  for (const side of sides) {
    side.kept = side.dropped ? keptAt(side, side.step) : null;
    countHeads(side);
    countChosen(side);
  }
  countCommon();
  drawStep();
  draw();
}

function wordsOf(side) {
  if (!side.dropped) return 'Nothing was dropped: every token stays in every layer and KV head.';
  let words = `Each layer and KV head keeps ${rangeOf(side)} of them`;
  words += side.cycles > 0 ? ` after ${number(side.cycles)} distillation${side.cycles > 1 ? 's' : ''}, and what came after the last.` : '.';
  let none = 0;
  for (let token = 0; token < prompt; ++token) none += side.counts[token] === 0 && !isLater(side, token);
  return words + ` ${number(none)} tokens are kept by no head.`;
}
const mean = values => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
function describe() {
  if (two) {
    const common = sides.filter(side => side.kept).map(side =>
      `Of what a head keeps with ${side.name} it keeps ${percent(mean(side.cells.map(cell => cell.common)))} with ${sides[1 - side.index].name} too.`);
    $('summary').textContent = `${number(prompt)} tokens. ` + sides.map(side => `${side.name}: ${wordsOf(side)}`).join(' ') + ' ' + common.join(' ');
  } else {
    $('summary').textContent = `${number(prompt)} tokens, policy ${front.name}. ${wordsOf(front)}`;
  }
  document.title = `palimpsest inspect: ${sides.map(side => side.name).join(' and ')}, ${number(prompt)} tokens`;
  const fact = (key, value, code) => {
    const place = element('dd');
    place.append(code ? element('code', '', value) : value);
    $('facts').append(element('dt', '', key), place);
  };
  fact('model', `${data.model}: ${data.layers} layers, ${heads} KV heads each`);
  for (const side of sides) {
    fact('policy', side.policy, true);
    if (side.dropped) fact('stays', `${number(Math.round(side.resident))} of ${number(prompt)} tokens when the answer begins, mean of layers and KV heads`);
    if (side.cycles > side.steps.length) fact('distillations', `${number(side.cycles)}; ${number(side.steps.length)} of them are drawn`);
  }
  fact('command', data.command, true);
  $('about').open = !narrow.matches;
}
