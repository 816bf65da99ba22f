// @ts-check
// What the visitor teaches and what adaptation does, on the page. It shares the
// page's session and worker with the Go role: its requests have ids below zero,
// and what else the worker says it hears first. It is not Go, for here it costs
// the visitor a tenth of the bytes.
import {Chart} from './chart.js';
import {download, forget, keep, paint, readFile, recall, thumb} from './keep.js';

/** @typedef {import('./protocol.js').Reply} Reply */
/** @typedef {import('./protocol.js').Request} Request */
/** @typedef {import('./protocol.js').Lessons} Lessons */
/** @typedef {Extract<Reply, {kind: 'result'}>} Result */

const session = 'page', off = 'zeroshot';
const enough = 3; // examples that a label is known well by
const maxChips = 60; // labels shown one by one
const drawEvery = 500, keepEvery = 10_000; // ms

/** @param {string} id @returns {any} */
const el = (id) => document.getElementById(id);
/** @param {string} tag @param {object} props @param {...(Node | string)} children @returns {any} */
const make = (tag, props, ...children) => {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children);
  return e;
};
/** @param {string} id @param {string} text */
const say = (id, text) => { if (el(id).textContent !== text) el(id).textContent = text; };
const counted = (/** @type {number} */ n, /** @type {string} */ what) => `${n} ${what}${n === 1 ? '' : 's'}`;
const look = () => document.dispatchEvent(new Event('lqa-look')); // once more at a still picture
const live = () => ['camera', 'clip', 'video'].includes(el('stage').dataset.source);

/** Effects in words. @type {Record<string, string>} */
const effects = {
  dark: 'Dark', exposure: 'Too bright', cast: 'Colour cast', blur: 'Soft', defocus: 'Out of focus',
  motion: 'Shaken', noise: 'Noise', rolling: 'Flicker', dirt: 'Dirty lens',
};

/** @type {Worker} */
let worker;
let nextID = -1;
/** @type {Map<number, (m: Reply) => void>} */
const pending = new Map();

/** @type {Extract<Reply, {kind: 'loaded'}> | undefined} */
let model;
/** @type {string[]} */
let labels = [];
let template = '';
let era = 0; // counts sessions: what belongs to an earlier one is stale; 0: none is open
let open = false;

let adapts = true, method = '', frozen = false, hard = false, effect = 'dark';

/** @type {Lessons['taught']} */
let taught = [];
/** Thumbnails, by an example's number. @type {Map<number, HTMLCanvasElement>} */
let shots = new Map();
/** And by slot of the adapter's cache. @type {Map<number, HTMLCanvasElement>} */
const seen = new Map();
const chart = new Chart();
let drawnAt = 0, keptAt = 0;

/**
 * Puts this between the page's Go role and its worker.
 * @param {(hear: (m: Reply) => void) => Worker} start @param {(m: Reply) => void} receive
 */
export function attach(start, receive) {
  pending.clear();
  open = false;
  model = undefined;
  return worker = start((m) => { if (!hear(m)) receive(m); });
}

/** Takes a reply; true: it is for nobody else. @param {Reply} m */
function hear(m) {
  if (m.id < 0) {
    pending.get(m.id)?.(m);
    pending.delete(m.id);
    return true;
  }
  if (m.kind === 'loaded') loaded(m);
  else if (m.kind === 'opened' && m.session === session) opened(m);
  else if (m.kind === 'result') {
    answered(m);
    delete m.view; // Go reads text alone
  }
  return false;
}

/**
 * Asks the engine about the page's session; does nothing without one, and the
 * answer is lost where another began meanwhile.
 * @param {Omit<Request, 'id'> & {state?: Uint8Array}} request @returns {Promise<any>}
 */
function ask(request) {
  const id = nextID--, now = era;
  if (!open) return new Promise(() => {});
  worker.postMessage({...request, session, id});
  return new Promise((resolve, reject) => pending.set(id, (m) => {
    if (now !== era) return;
    if (m.kind === 'error') reject(m);
    else resolve(m);
  }));
}

/** Shows an error in the page's own notice. @param {any} err */
const notice = (err) => document.dispatchEvent(new CustomEvent('lqa-notice', {detail: {code: err.code ?? 'internal', message: err.message}}));

/** @param {Extract<Reply, {kind: 'loaded'}>} m */
function loaded(m) {
  model = m;
  method ||= m.adapters.includes('stream') ? 'stream' : 'lqa';
  el('method').replaceChildren(...m.methods.filter(({name}) => name !== off).map(({name, title}) => make('option', {value: name, textContent: title})));
  el('effects').replaceChildren(...m.effects.map((name) => {
    const b = make('button', {type: 'button', className: 'button button-small', textContent: effects[name] ?? name});
    b.dataset.effect = name;
    return b;
  }));
  el('hard').hidden = m.effects.length === 0;
  showMethod();
  showEffect();
}

/** @param {Extract<Reply, {kind: 'opened'}>} m */
function opened(m) {
  const knew = taught.length > 0;
  era++;
  open = true;
  labels = m.labels;
  template = el('template').value.trim();
  startOver();
  showChips(m.known);
  el('labels-unknown').hidden = m.known.every(Boolean);
  ask({kind: 'watch', on: true}).catch(notice);
  if (frozen) ask({kind: 'freeze', on: true}).catch(notice);
  if (hard) sendEffect().catch(notice);
  if (knew) note('Other labels: it starts over. What you taught is kept for the list before.');
  restoreKept().catch(() => {}); // see keepTaught
}

/** Shows a session that knows nothing. */
function startOver() {
  taught = [];
  shots = new Map();
  seen.clear();
  chart.clear();
  showTaught();
  showVotes([]);
  note('');
  told('');
}

/** @param {Result} m */
function answered(m) {
  const {report, view} = m;
  if (view && hard) paint(el('view'), view);
  if (!live()) return;
  if (view && report.entered >= 0) seen.set(report.entered, thumb(view));
  const now = performance.now();
  chart.add(now, m.zeroShot, m.adapted);
  if (now - drawnAt < drawEvery) return;
  drawnAt = now;
  chart.draw(now);
  showVotes(report.voted ?? []);
  if (now - keptAt > keepEvery && !frozen) keepTaught();
}

// ---- teaching --------------------------------------------------------------

/** @param {boolean[]} known */
function showChips(known) {
  el('chips').replaceChildren(...labels.slice(0, maxChips).map((label, i) => {
    const button = make('button', {type: 'button', textContent: label});
    const chip = make('li', {className: 'chip'}, button);
    chip.dataset.label = button.dataset.label = label;
    if (!known[i]) {
      chip.dataset.unknown = '';
      button.append(make('span', {className: 'chip-mark', textContent: 'guessed'}));
    }
    button.append(make('span', {className: 'dots', ariaHidden: 'true'}));
    return chip;
  }));
  const more = labels.length - maxChips;
  if (more > 0) el('chips').append(make('li', {className: 'chip-more', textContent: `and ${more} more`}));
}

/** What is in view becomes an example. @param {string} label */
async function teach(label) {
  try {
    const m = await ask({kind: 'teach', label});
    taught = m.taught;
    if (m.view) shots.set(taught[taught.length - 1].example, thumb(m.view));
    lessonsChanged();
    told(learned(label, m.replaced), true);
    const stage = el('stage');
    stage.classList.remove('learned');
    void stage.offsetWidth; // so that the animation starts over
    stage.classList.add('learned');
  } catch (/** @type {any} */ err) {
    told(err.code === 'teach.nothing' ? 'Nothing has been looked at yet: start the camera, or choose a picture.' : err.message);
  }
}

/** @param {string} label @param {number} replaced */
function learned(label, replaced) {
  const n = taught.filter((e) => e.label === label).length;
  const words = `Learned: ${label}, ${counted(n, 'example')}. `;
  if (replaced) return words + 'That is the most it keeps: the oldest made room.';
  return words + (n < enough ? `${enough - n} more, from other sides, would make it sure.` : 'That is enough.');
}

/** @param {number} example */
async function unteach(example) {
  taught = (await ask({kind: 'unteach', example})).taught;
  lessonsChanged();
  told('Taken back.', taught.length > 0);
  if (taught.length > 0) return;
  note('');
  forgetKept();
}

function lessonsChanged() {
  showTaught();
  look();
  keepSoon();
}

/** @param {string} words @param {boolean} [undo] */
function told(words, undo) {
  say('teach-said', words);
  el('teach-undo').hidden = !undo;
}

function showTaught() {
  /** @type {Map<string, HTMLElement[]>} */
  const rows = new Map();
  const kept = new Map();
  for (const {example, label} of taught) {
    const shot = shots.get(example);
    const button = make('button', {type: 'button', className: 'shot', ariaLabel: `Take back an example of ${label}`}, ...shot ? [shot] : []);
    button.dataset.example = example;
    if (shot) kept.set(example, shot);
    rows.set(label, [...rows.get(label) ?? [], button]);
  }
  shots = kept;
  el('taught').replaceChildren(...[...rows].map(([label, buttons]) => {
    const row = make('li', {}, make('span', {textContent: label}), make('div', {className: 'shots'}, ...buttons));
    row.dataset.label = label;
    return row;
  }));
  el('taught-section').hidden = taught.length === 0;
  for (const chip of el('chips').querySelectorAll('.chip')) {
    const n = rows.get(chip.dataset.label)?.length ?? 0;
    chip.toggleAttribute('data-count', n > 0);
    if (n) chip.dataset.count = n;
    chip.style.setProperty('--n', n);
    chip.firstChild.ariaDescription = n ? `taught: ${counted(n, 'example')}` : null;
  }
}

/** Pictures that voted on the newest answer. @param {import('./protocol.js').Vote[]} votes */
function showVotes(votes) {
  const list = el('votes');
  while (list.children.length > votes.length) list.lastChild.remove();
  while (list.children.length < votes.length) list.append(make('li', {}, document.createElement('canvas'), document.createElement('span')));
  votes.forEach((v, i) => {
    const [canvas, words] = list.children[i].children;
    paint(canvas, (v.taught ? shots : seen).get(v.slot));
    words.textContent = list.children[i].dataset.label = v.label;
    list.children[i].toggleAttribute('data-taught', v.taught);
  });
  el('votes-section').hidden = votes.length === 0;
}

// ---- what is kept ----------------------------------------------------------

const keptFor = () => [...labels, template].join('\n'); // the prompt makes other words of them

async function restoreKept() {
  const now = era, hash = /** @type {NonNullable<typeof model>} */ (model).hash;
  const {kept, thumbs, stale} = await recall(hash, keptFor());
  if (now !== era) return;
  if (stale) note('The model has changed: what the old one was taught is of no use, and it starts over.');
  if (!kept) return;
  try {
    await restore(kept.state, thumbs);
  } catch {
    if (now === era) forgetKept(); // damaged: it would be so next time
  }
}

/** @param {Uint8Array} state @param {[number, HTMLCanvasElement][]} [thumbs] */
async function restore(state, thumbs) {
  const m = await ask({kind: 'restore', state});
  startOver();
  taught = m.taught;
  shots = new Map(thumbs);
  adapts = m.adapter !== off;
  if (adapts) method = m.adapter;
  showMethod();
  note(taught.length ? `Restored what you taught: ${counted(taught.length, 'example')} of ${counted(new Set(taught.map((e) => e.label)).size, 'label')}.`
    : 'Restored what it had learned.', true);
  lessonsChanged();
}

/** @param {string} words @param {boolean} [forgettable] */
function note(words, forgettable) {
  say('kept-text', words);
  el('kept-forget').hidden = !forgettable;
  el('kept').hidden = !words;
}

let soon = 0;
function keepSoon() {
  clearTimeout(soon);
  soon = setTimeout(keepTaught, 100);
}

/** Keeps the session for the next visit once something was taught: what an
 * adapter learned alone may be of a room that the visitor has left. */
async function keepTaught() {
  keptAt = performance.now();
  if (!taught.length || !model) return;
  const {hash} = model;
  try {
    const {state} = await ask({kind: 'save'});
    if (taught.length) await keep(hash, keptFor(), state, [...shots]); // not where it was all forgotten meanwhile
  } catch { /* a browser that keeps nothing (a private window) is no fault */ }
}

function forgetKept() {
  if (model) forget(model.hash, keptFor()).catch(() => {});
}

async function forgetAll() {
  await ask({kind: 'reset', taught: true});
  clearTimeout(soon);
  startOver();
  told('Forgotten, here and in this browser’s store.');
  forgetKept();
  look();
}

// ---- adapter and effect ----------------------------------------------------

/** Shows which adapter is chosen and whether it is on; Go opens sessions with it. */
function showMethod() {
  document.documentElement.dataset.adapter = adapts ? method : off;
  el('adaptation').ariaChecked = String(adapts);
  el('method').value = method;
  say('method-doc', model?.methods.find(({name}) => name === method)?.doc ?? '');
}

function sendMethod() {
  showMethod();
  seen.clear();
  return ask({kind: 'adapt', adapter: adapts ? method : off});
}

function showEffect() {
  for (const name of ['ariaPressed', 'ariaExpanded']) el('hard')[name] = String(hard);
  el('hard-panel').hidden = el('view-figure').hidden = !hard;
  for (const b of el('effects').children) b.ariaPressed = String(b.dataset.effect === effect);
}

async function sendEffect() {
  showEffect();
  await ask({kind: 'effect', effect: hard ? effect : '', strength: Number(el('strength').value)});
  look();
}

// ---- controls --------------------------------------------------------------

/** @param {string} id @param {string} event @param {(target: any) => unknown} f */
const on = (id, event, f) => el(id).addEventListener(event, async (/** @type {Event} */ {target}) => {
  try {
    await f(target);
  } catch (err) {
    notice(err);
  }
});
const click = (/** @type {string} */ id, /** @type {() => unknown} */ f) => on(id, 'click', f);
/** Calls f with a datum of the button that a click in a list hits. @param {string} list @param {string} name @param {(value: string) => unknown} f */
const pressed = (list, name, f) => on(list, 'click', (target) => {
  const value = target.closest('button')?.dataset[name];
  return value === undefined || f(value);
});

pressed('chips', 'label', teach);
pressed('taught', 'example', (n) => unteach(Number(n)));
click('teach-undo', () => taught.length && unteach(taught[taught.length - 1].example));
click('taught-clear', () => Promise.all(taught.map(({example}) => unteach(example))));
click('adaptation', () => { adapts = !adapts; return sendMethod(); });
click('adaptation-reset', async () => {
  await ask({kind: 'reset'});
  seen.clear();
  keepSoon();
  say('report', 'Forgotten. It starts over with the next frame.');
});
on('method', 'change', ({value}) => { method = value; adapts = true; return sendMethod(); });
click('freeze', () => {
  frozen = !frozen;
  el('freeze').ariaChecked = String(frozen);
  return ask({kind: 'freeze', on: frozen});
});
click('hard', () => { hard = !hard; return sendEffect(); });
pressed('effects', 'effect', (name) => { effect = name; return sendEffect(); });
on('strength', 'change', sendEffect);
click('state-save', async () => download((await ask({kind: 'save'})).state, 'taught.lqa'));
click('state-load', () => el('state-file').click());
on('state-file', 'change', async (input) => {
  const [file] = input.files;
  const state = file && await readFile(file);
  input.value = ''; // the same file may be chosen again
  if (state) await restore(state);
});
click('state-forget', forgetAll);
click('kept-forget', forgetAll);
document.addEventListener('visibilitychange', () => { if (document.hidden) keepTaught(); });
