// The page is complete: what reacts to what, and the first drawing.
const move = to => { front.step = to; showStep(); };
$('step').addEventListener('input', () => move(+$('step').value));
$('back').addEventListener('click', () => move(front.step - 1));
$('on').addEventListener('click', () => move(front.step + 1));
if (sides.some(side => side.dropped)) {
  buildMap();
} else {
  $('side').hidden = $('overview').hidden = $('showing').hidden = true;
  document.querySelector('main').classList.add('full');
}
if (two) {
  document.documentElement.classList.add('two');
  $('of').hidden = $('names').hidden = $('common').hidden = false;
  document.querySelector('[name=measure][value=common]').checked = true;
  for (const side of sides) {
    $('names').append(element('code', '', side.name));
    const label = element('label'), radio = element('input');
    radio.type = 'radio';
    radio.name = 'front';
    radio.checked = side === front;
    radio.disabled = !side.dropped;
    radio.addEventListener('change', () => { front = side; drawStep(); draw(); });
    label.append(radio, ' ' + side.name);
    $('of').append(label);
  }
}
for (const radio of document.querySelectorAll('[name=measure]')) {
  radio.addEventListener('change', () => { measure = radio.value; drawMap(); });
}
$('overview').addEventListener('click', event => {
  const token = Math.floor(event.offsetX / $('overview').clientWidth * length);
  if (sides.some(side => side.spans[token])) goTo(token, true);
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
