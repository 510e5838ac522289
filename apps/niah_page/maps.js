// --- scores, and maps of depths and lengths
function scoreCell(row) {
  if (!row) return element('td', '', '');
  if (row.n === 0) return element('td', 'hole', '×');
  const cell = element('td', shade(row.correct), exact(row.correct));
  add(cell, element('span', 'range', range(row.correct, row.n)));
  cell.title = `${row.n} answers; worst depth ${row.worst.depth === null ? '–' : depthOf(row.worst.depth)}: ` +
    `${exact(row.worst.correct)} %`;
  return cell;
}

function notes(row) {
  const all = [];
  const say = (what, number, of) => { if (number > 0) all.push(number === of ? what : `${what} in ${number} of ${of}`); };
  if (row.policy !== 'full') say('kept all: not tested', row.kept_all, row.n);
  say('degraded', row.degraded, row.n);
  say('no answer', row.failed, row.n + row.failed);
  return all;
}

// One table: policies down, lengths across.
function scoresOf(task, question) {
  const table = element('table', 'scores'), head = element('tr'), body = element('tbody');
  add(head, element('th', 'name', 'policy'));
  for (const length of lengths) add(head, element('th', '', count(length)));
  for (const policy of policies) {
    const rows = lengths.map(length => rowOf(task, question, policy, length));
    if (rows.every(row => row === null)) continue;
    const line = element('tr'), name = broken(element('th', 'name'), policy);
    const said = unique(rows.flatMap(row => row ? notes(row) : []));
    if (said.length > 0) add(name, element('div', 'note', said.join('; ')));
    add(line, name);
    for (const row of rows) add(line, scoreCell(row));
    add(body, line);
  }
  return add(element('div', 'scroll'), add(table, add(element('thead'), head), body));
}

function drawScores() {
  for (const task of tasks) {
    for (const question of questions) {
      add($('scores'), element('h3', '', `${task}, question ${question}`), scoresOf(task, question));
    }
  }
  for (let i = 0; i <= 8; i += 2) add($('legend'), element('span', 'swatch s' + i, percent(i / 8)));
}

// One table: depths down, lengths across.
function mapOf(title, rows) {
  const of_lengths = unique(rows.map(row => row.length)).sort((a, b) => a - b);
  const depths = unique(rows.map(row => row.depth)).sort((a, b) => a - b);
  const table = element('table', 'map'), head = element('tr'), body = element('tbody');
  add(head, element('th', '', ''));
  for (const length of of_lengths) add(head, element('th', '', count(length)));
  for (const depth of depths) {
    const line = element('tr');
    add(line, element('th', '', depthOf(depth)));
    for (const length of of_lengths) {
      const all = together(rows.filter(row => row.length === length && row.depth === depth));
      const cell = all.n > 0 ? element('td', shade(all.correct), percent(all.correct))
                             : element('td', 'hole', all.failed > 0 ? '×' : '');
      if (all.n > 0) cell.title = `${count(length)}, depth ${depthOf(depth)}: ${exact(all.correct)} % of ${all.n} ` +
        `(${range(all.correct, all.n)})`;
      if (all.failed > 0) cell.title = `${all.failed} answers did not come`;
      add(line, cell);
    }
    add(body, line);
  }
  add(table, add(element('thead'), head), body);
  return add(element('figure'), broken(element('figcaption'), title), add(element('div', 'scroll'), table));
}

function drawMaps() {
  for (const task of tasks) {
    for (const question of questions) {
      const of_task = cells.filter(cell => cell.task === task && cell.question === question && cell.depth !== null);
      if (of_task.length === 0) continue;
      $('maps-section').hidden = false;
      const grid = element('div', 'grid');
      for (const policy of policies) {
        const rows = of_task.filter(cell => how(cell) === policy);
        if (rows.length > 0) add(grid, mapOf(policy, rows));
      }
      add($('maps'), element('h3', '', `${task}, question ${question}`), grid);
    }
  }
}
