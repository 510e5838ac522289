// --- curves of turns
const dashes = ['', '6 3', '2 3', '8 3 2 3', '4 4', '1 3', '10 4', '6 2 1 2'];
function svg(tag, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
function svgText(x, y, anchor, text) {
  const made = svg('text', {x, y, 'text-anchor': anchor});
  made.textContent = text;
  return made;
}

// Each policy has its colour and its dashes everywhere.
function style(policy, node) {
  const number = policies.indexOf(policy);
  node.style.stroke = `var(--c${number % 8})`;
  node.setAttribute('stroke-dasharray', dashes[Math.floor(number / 8 + number) % 8]);
  return node;
}
function keyOf(policy) {
  const line = style(policy, svg('line', {x1: 0, y1: 6, x2: 26, y2: 6, class: 'curve'}));
  const picture = add(svg('svg', {width: 26, height: 12, 'aria-hidden': 'true'}), line);
  return add(element('span', 'key'), picture, broken(element('span'), policy));
}

function chartOf(title, curves) {
  const width = 300, height = 190, left = 30, right = 8, top = 8, bottom = 34;
  const turns = unique(curves.flatMap(curve => curve.points.map(point => point.turn))).sort((a, b) => a - b);
  const x = turn => left + (width - left - right) * (turns.length > 1 ? turns.indexOf(turn) / (turns.length - 1) : 0.5);
  const y = share => top + (height - top - bottom) * (1 - share);
  const drawing = svg('svg', {viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': title});
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    add(drawing, svg('line', {x1: left, y1: y(share), x2: width - right, y2: y(share), class: 'axis'}),
        svgText(left - 6, y(share) + 4, 'end', percent(share)));
  }
  for (const turn of turns) add(drawing, svgText(x(turn), height - bottom + 16, 'middle', turn));
  add(drawing, svgText((left + width - right) / 2, height - 4, 'middle', 'turn'));
  for (const {policy, points} of curves) {
    const path = points.map((point, i) => `${i === 0 ? 'M' : 'L'}${x(point.turn)} ${y(point.correct)}`).join('');
    add(drawing, style(policy, svg('path', {d: path, class: 'curve'})));
    for (const point of points) {
      const dot = svg('circle', {cx: x(point.turn), cy: y(point.correct), r: 3});
      dot.style.fill = `var(--c${policies.indexOf(policy) % 8})`;
      const tip = svg('title', {});
      tip.textContent = `${policy}, turn ${point.turn}: ${exact(point.correct)} % of ${point.n} (${range(point.correct, point.n)})`;
      add(drawing, add(dot, tip));
    }
  }
  return add(element('figure', 'chart'), element('figcaption', '', title), drawing);
}

function drawTurns() {
  if (!several) return;
  $('turns-section').hidden = false;
  const keys = element('div', 'keys');
  for (const policy of policies) add(keys, keyOf(policy));
  add($('turns'), keys);
  for (const task of tasks) {
    for (const question of questions) {
      const grid = element('div', 'grid');
      for (const length of lengths) {
        const curves = policies.map(policy => ({policy, points: summary.filter(
          row => row.task === task && row.question === question && row.length === length && how(row) === policy &&
            row.turn !== null && row.n > 0)})).filter(curve => curve.points.length > 0);
        if (curves.length > 0) add(grid, chartOf(`${count(length)} tokens`, curves));
      }
      if (grid.childNodes.length > 0) add($('turns'), element('h3', '', `${task}, question ${question}`), grid);
    }
  }
}
