// --- what it took
const ordered = () => tasks.flatMap(task => questions.flatMap(question => lengths.flatMap(length => policies.map(
  policy => rowOf(task, question, policy, length))))).filter(row => row !== null && row.n > 0);

function head(names) {
  const line = element('tr');
  names.forEach((name, i) => add(line, element('th', i === 0 ? 'name policy' : '', name)));
  return add(element('thead'), line);
}

// A row, and above the first of a task, question and length a line that says which.
function addLine(body, row, before, values) {
  const group = of => `${of.task}, question ${of.question}, ${count(of.length)} tokens`;
  if (!before || group(before) !== group(row)) {
    const title = element('th', 'name group', group(row));
    title.colSpan = values.length + 1;
    add(body, add(element('tr', 'first'), title));
  }
  const line = add(element('tr'), broken(element('th', 'name policy'), how(row)));
  for (const value of values) add(line, value instanceof Node ? value : element('td', '', value));
  add(body, line);
}

function bytesCell(value, most) {
  const cell = element('td', '', bytes(value));
  if (value === null) return cell;
  const bar = element('span', 'bar'), filled = element('i');
  filled.style.width = `${100 * value / most}%`;
  add(cell, add(bar, filled));
  return cell;
}

function drawCosts() {
  const rows = ordered(), body = element('tbody');
  const names = ['policy', 'resident', 'of full', 'peak', 'prompt', 'resident tokens', 'answer', 'first token, s', 'tokens/s',
                 'as full'];
  rows.forEach((row, i) => {
    const full = rowOf(row.task, row.question, 'full', row.length);
    const most = Math.max(...rows.filter(one => one.length === row.length).map(one => one.resident_bytes ?? 0));
    const share = full && full.resident_bytes && row.resident_bytes !== null ? row.resident_bytes / full.resident_bytes : null;
    addLine(body, row, rows[i - 1], [
      bytesCell(row.resident_bytes, most), share === null ? '–' : percent(share) + ' %', bytes(row.device_bytes_peak),
      whole(row.prompt_tokens), whole(row.resident_tokens), row.output_tokens.toFixed(1), seconds(row.first_token_seconds),
      row.decode_tokens_per_second === null ? '–' : row.decode_tokens_per_second.toFixed(1),
      row.as_full === null ? '–' : exact(row.as_full / row.n) + ' %']);
  });
  add($('costs'), head(names), body);
}

function drawReceipts() {
  const rows = ordered().filter(row => row.resident_bytes !== null), body = element('tbody');
  $('receipts-section').hidden = rows.length === 0;
  const names = ['policy', 'answers', 'load, s', 'prefill, s', 'recall, s', 'decode, s',
                 'to host', 'to SSD', 'recalled from host', 'recalled from SSD', 'cached tokens', 'computed again'];
  rows.forEach((row, i) => {
    const sums = row.receipts;
    addLine(body, row, rows[i - 1], [
      whole(row.n), seconds(sums.seconds.load), seconds(sums.seconds.prefill), seconds(sums.seconds.recall),
      seconds(sums.seconds.decode), bytes(sums.spilled_bytes.host), bytes(sums.spilled_bytes.ssd),
      bytes(sums.recalled_bytes.host), bytes(sums.recalled_bytes.ssd), whole(sums.cached_tokens),
      whole(sums.recomputed_tokens)]);
  });
  add($('receipts'), head(names), body);
}
