// @ts-check
// What a page does with the widget's answers.
const camera = document.querySelector('lqa-camera');
const heard = document.getElementById('heard');

/** @param {string} text */
const say = (text) => { if (heard) heard.textContent = text; };

camera?.addEventListener('result', (event) => {
  const {scores, none} = event.detail;
  say(`${scores[0].label} ${Math.round(scores[0].score * 100)}%, none of these ${Math.round(none * 100)}%`);
});
camera?.addEventListener('error', (event) => say(`${event.detail.code}: ${event.detail.message}`));

// And how it is taught: a button for each label, one to take the newest back.
const undo = document.getElementById('undo');
const tell = (/** @type {Promise<{label: string}[]> | undefined} */ kept) => kept?.then(
  (all) => say(`Taught: ${all.map(({label}) => label).join(', ') || 'nothing'}.`),
  (err) => say(`${err.code}: ${err.message}`));
for (const label of camera?.labels.split(',') ?? []) {
  const button = Object.assign(document.createElement('button'), {type: 'button', textContent: label.trim()});
  button.addEventListener('click', () => tell(camera?.teach(label.trim())));
  undo?.before(button, ' ');
}
undo?.addEventListener('click', () => tell(camera?.undo()));
