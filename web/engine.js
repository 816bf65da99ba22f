// @ts-check
// The engine as a widget sees it: one worker for each model, however many
// widgets look through it. It ends with the last of them.
import {startWorker} from './start.js';
import {Failure, clear, explain, play, stopStream, watch} from './media.js';

/** @typedef {import('./protocol.js').Request} Request */
/** @typedef {import('./protocol.js').Reply} Reply */
/** @typedef {import('./protocol.js').Picture} Picture */
/** @typedef {{url: string, integrity: string, labels: string[], template: string, adapter: string}} Options */

/** @type {Map<string, Engine>} */
const engines = new Map();
let sessions = 0;

class Engine {
  /** @type {Map<number, {done(m: Reply): void, fail(e: Failure): void, step?(m: Reply): void}>} */
  #pending = new Map();
  #id = 0;
  users = 0;
  /** @type {Set<(m: Reply) => void>} */
  loading = new Set();

  /** @param {Options} o */
  constructor(o) {
    this.key = `${o.url} ${o.integrity}`;
    this.worker = startWorker((m) => this.#receive(m));
    /** The model, once pictures can be answered; words may still be on their way. @type {Promise<Reply>} */
    this.loaded = new Promise((done, fail) => {
      const step = (/** @type {Reply} */ m) => {
        if (m.kind === 'loaded') done(m);
        for (const f of this.loading) f(m);
      };
      this.ask({kind: 'hello', version: 1})
        .then(() => this.ask({kind: 'load', url: o.url, integrity: o.integrity || undefined}, undefined, step))
        .catch((err) => { fail(err); this.end(); }); // a broken engine is not kept
    });
    this.loaded.catch(() => {}); // told by connect
  }

  /** @param {Reply} m */
  #receive(m) {
    if (m.kind === 'error' && m.id === 0) {
      for (const p of this.#pending.values()) p.fail(new Failure(m.code, m.message));
      return this.end();
    }
    const p = this.#pending.get(m.id);
    if (m.kind === 'progress' || (m.kind === 'loaded' && m.stage === 'image')) return p?.step?.(m);
    this.#pending.delete(m.id);
    if (m.kind === 'error') p?.fail(new Failure(m.code, m.message));
    else p?.done(m);
  }

  /**
   * @param {Omit<Request, 'id'>} request
   * @param {Picture} [image] passes over to the engine
   * @param {(m: Reply) => void} [step] is called with replies before the last
   * @returns {Promise<Reply>}
   */
  ask(request, image, step) {
    const id = ++this.#id;
    return new Promise((done, fail) => {
      this.#pending.set(id, {done, fail, step});
      const transfer = image && !(image instanceof ImageData) ? [image] : [];
      this.worker.postMessage({...request, id, image}, transfer);
    });
  }

  end() {
    this.worker.terminate();
    if (engines.get(this.key) === this) engines.delete(this.key);
  }
}

/**
 * Looks through a camera until closed.
 * @param {MediaStream} camera is stopped by close
 * @param {HTMLVideoElement} video shows it
 * @param {Options} options
 * @param {(m: Reply) => void} tell is given progress, loaded and result replies
 * @param {(e: {code: string, message: string, text: string}) => void} fail is called once, when it cannot go on
 */
export async function connect(camera, video, options, tell, fail) {
  const key = `${options.url} ${options.integrity}`;
  const engine = engines.get(key) ?? new Engine(options);
  engines.set(key, engine);
  engine.users++;
  engine.loading.add(tell);
  const session = `widget ${++sessions}`;
  let unwatch = () => {}, open = true;
  const close = () => {
    if (!open) return;
    open = false;
    unwatch();
    clear(video);
    stopStream(camera);
    engine.loading.delete(tell);
    if (--engine.users === 0) engine.end();
    else engine.ask({kind: 'close', session}).catch(() => {});
  };
  const stopped = (/** @type {unknown} */ err) => { if (open) { close(); fail(told(err)); } };
  const {labels, template, adapter} = options;
  /** @type {Reply} */
  let model;
  try {
    camera.getVideoTracks()[0].onended = () => stopped(new Failure('camera.lost', 'the camera was unplugged or taken away'));
    await play(video, camera);
    model = await engine.loaded;
    await engine.ask({kind: 'open', session, labels, template, adapter});
  } catch (err) {
    close();
    throw err;
  }
  /** What the session was taught. @type {import('./protocol.js').Example[]} */
  let taught = [];
  const lesson = async (/** @type {Omit<Request, 'id'>} */ request) => {
    const m = await engine.ask({...request, session});
    return taught = m.kind === 'taught' ? m.taught : [];
  };
  const start = performance.now();
  if (open) {
    unwatch = watch(video, (image, done) => {
      engine.ask({kind: 'frame', session, time: performance.now() - start}, image)
        .then((m) => { if (open && m.kind === 'result') tell(m); }, stopped).finally(done);
    });
  }
  return {
    close, model,
    /** @param {string[]} labels @param {string} template */
    label: (labels, template) => lesson({kind: 'labels', labels, template}),
    /** @param {string} label */
    teach: (label) => lesson({kind: 'teach', label}),
    undo: async () => (taught.length ? lesson({kind: 'unteach', example: taught[taught.length - 1].example}) : taught),
    /** @param {string} adapter */
    adapt: (adapter) => engine.ask({kind: 'adapt', session, adapter}),
    reset: () => engine.ask({kind: 'reset', session}),
  };
}

/**
 * Shows the best answers in a list, and says the first in a live region, at
 * most every three seconds: a reader speaks slower than a camera looks.
 * @param {HTMLElement} list @param {HTMLElement} status
 * @returns {(s: import('./protocol.js').Scores) => void}
 */
export function painter(list, status) {
  let said = 0;
  return ({scores, none}) => {
    const all = [...scores, {label: 'none of these', score: none}].sort((a, b) => b.score - a.score);
    list.replaceChildren(...all.slice(0, 3).map(({label, score}) => {
      const row = document.createElement('li');
      row.setAttribute('part', 'answer');
      row.style.setProperty('--score', String(score));
      row.append(...[label, `${Math.round(score * 100)}%`].map((t) => Object.assign(document.createElement('span'), {textContent: t})));
      return row;
    }));
    if (performance.now() - said > 3000) {
      said = performance.now();
      status.textContent = all[0].label;
    }
  };
}

/** What a visitor reads. @type {Record<string, string>} */
const words = {
  'camera.denied': 'The camera is blocked. Allow it in the site’s settings, then try again.',
  'camera.none': 'No camera was found.', 'camera.busy': 'Another program uses the camera.',
  'camera.unfit': 'That camera is not available.', 'camera.lost': 'The camera went away.',
  'camera.insecure': 'Cameras need a secure (https) page.', 'camera.unsupported': 'This browser offers no camera.',
  'device.no-simd': 'This browser is too old for the engine.', 'labels.none': 'There is nothing to look for: no labels were given.',
};

/** @param {unknown} err @returns {{code: string, message: string, text: string}} */
export function told(err) {
  const e = explain(err);
  return {code: e.code, message: e.message, text: words[e.code] ?? 'The model could not be loaded or run.'};
}
