'use strict';
// --- what the page is about: the report as `niah --json` prints it (docs/needle-files.md)
const report = JSON.parse(document.getElementById('data').textContent);
const run = report.run, cells = report.cells, summary = report.summary;
const $ = id => document.getElementById(id);

function element(tag, classes, text) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined) made.textContent = text;  // never as HTML: what is shown comes from outside
  return made;
}
function add(parent, ...children) {
  for (const child of children) parent.appendChild(child);
  return parent;
}

// The text, which may be broken behind its commas.
function broken(node, text) {
  text.split(/(?<=[,+:])/).forEach((part, i) => {
    if (i > 0) node.appendChild(document.createElement('wbr'));
    node.appendChild(document.createTextNode(part));
  });
  return node;
}

const how = row => row.recall === 'none' ? row.policy : row.policy + ' + ' + row.recall;
const unique = values => [...new Set(values)];
const tasks = unique(cells.map(cell => cell.task));
const questions = unique(cells.map(cell => cell.question));
const lengths = unique(cells.map(cell => cell.length)).sort((a, b) => a - b);
const policies = unique(cells.map(how));
const several = unique(cells.map(cell => cell.turn)).length > 1;

function count(n) {  // as --lengths takes them
  if (n % 1048576 === 0) return n / 1048576 + 'M';
  return n % 1024 === 0 ? n / 1024 + 'K' : String(n);
}
function bytes(n) {
  if (n === null) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; ++unit; }
  return (unit === 0 ? n.toFixed(0) : n.toPrecision(3)) + ' ' + units[unit];
}
const whole = n => n === null ? '–' : Math.round(n).toLocaleString('en');
const seconds = n => n === null ? '–' : n < 10 ? n.toFixed(3) : n.toFixed(1);
const percent = share => (100 * share).toFixed(0);
const depthOf = percent => +percent.toFixed(1) + ' %';
const exact = share => (100 * share).toFixed(1);
const shade = share => 's' + Math.round(8 * share);

// All trials of `rows` together: { n, failed, correct }.
function together(rows) {
  let n = 0, right = 0, failed = 0;
  for (const row of rows) {
    n += row.n;
    failed += row.failed;
    right += row.n * (row.correct ?? 0);
  }
  return {n, failed, correct: n > 0 ? right / n : null};
}

// Where the true share lies with 95 % confidence (Wilson).
function interval(share, n) {
  const z = 1.959963984540054, scale = 1 / (1 + z * z / n);
  const middle = scale * (share + z * z / (2 * n));
  const half = scale * z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}
function range(share, n) {
  const [low, high] = interval(share, n);
  return (100 * low).toFixed(0) + '–' + (100 * high).toFixed(0);
}

// The summary's row over all turns, or null.
function rowOf(task, question, policy, length) {
  return summary.find(row => row.task === task && row.question === question && how(row) === policy &&
                      row.length === length && (several ? row.turn === null : true)) ?? null;
}
