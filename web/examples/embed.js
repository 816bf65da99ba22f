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
