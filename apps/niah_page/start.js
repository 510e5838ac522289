// The page is complete: the first lines, and the drawing.
function describe() {
  const all = together(cells);
  $('summary').textContent = `${run.model}: ${whole(all.n)} answers to ${tasks.join(', ')}` +
    (all.failed > 0 ? `; ${all.failed} did not come` : '') + '.';
  const facts = [['model', run.model], ['numerics', run.numerics], ['endpoint', run.endpoint], ['server', run.server], ['started', run.started],
                 ['version', run.version], ['seeds', `${run.seeds} from ${run.first_seed}`],
                 ['turns', run.turns], ['answer tokens', run.max_tokens ?? 'as each task says'],
                 ['read before anything was asked', run.reading && `${whole(run.reading.tokens)} tokens, ` +
                   `${whole(run.reading.computed)} of them computed, at most ${bytes(run.reading.device_bytes_peak)} on the device`]];
  for (const [name, value] of facts) {
    if (value) add($('facts'), element('dt', '', name), element('dd', '', value));
  }
  add($('facts'), element('dt', '', 'command'), add(element('dd'), element('code', '', run.command)));
}
describe();
drawScores();
drawMaps();
drawTurns();
drawCosts();
drawReceipts();
window.addEventListener('beforeprint', () => { $('about').open = true; });
