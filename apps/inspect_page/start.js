// The page is complete: what reacts to what, and the first drawing.
if (steps.length > 1) {
  $('steps').hidden = false;
  $('step').max = steps.length - 1;
  $('step').value = steps.length - 1;
  $('step').addEventListener('input', showStep);
  const move = by => { $('step').value = +$('step').value + by; showStep(); };
  $('back').addEventListener('click', () => move(-1));
  $('on').addEventListener('click', () => move(1));
} else {
  $('step').max = 0;
}
if (dropped) {
  buildMap();
} else {
  $('side').hidden = $('overview').hidden = $('showing').hidden = true;
  document.querySelector('main').classList.add('full');
}
for (const radio of document.querySelectorAll('[name=measure]')) {
  radio.addEventListener('change', () => { measure = radio.value; drawMap(); });
}
$('overview').addEventListener('click', event => {
  const token = Math.floor(event.offsetX / $('overview').clientWidth * ids.length);
  if (spans[token]) goTo(token, true);
});
window.addEventListener('resize', drawOverview);
window.addEventListener('beforeprint', () => { $('about').open = true; });
for (const query of ['(prefers-color-scheme: dark)', 'print']) {
  matchMedia(query).addEventListener('change', () => { drawShowing(); drawOverview(); });
}
bindText();
showStep();
describe();
build();
