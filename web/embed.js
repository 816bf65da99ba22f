// @ts-check
// <lqa-camera>: names what the camera sees, computed on this device.
// Until the first press only this file loads and nothing is asked for. Importing
// it where there is no document does nothing. embed.d.ts has the whole surface.

const css = `
:host { display: block; position: relative; max-width: 30rem; font: 1rem/1.4 system-ui, sans-serif; --lqa-accent: #0b7a57; }
.frame { position: relative; aspect-ratio: 4 / 3; border-radius: 1rem; overflow: hidden; background: #101513; color: #fff; }
video, ::slotted([slot=poster]) { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; }
video { visibility: hidden; }
.mirror { transform: scaleX(-1); }
[data-state=loading] video, [data-state=running] video { visibility: visible; }
[data-state=loading] slot, [data-state=running] slot { display: none; }
.middle { position: absolute; inset: 0; display: grid; place-content: center; justify-items: center; gap: .7rem; padding: 1rem; text-align: center; background: rgb(6 10 8 / .45); }
[data-state=running] .middle { display: none; }
button { font: inherit; font-weight: 600; min-height: 2.75rem; padding: .4rem 1.2rem; border: 0; border-radius: .8rem; background: var(--lqa-accent); color: #fff; cursor: pointer; }
button:focus-visible { outline: 3px solid #fff; outline-offset: 2px; }
.stop { position: absolute; top: .7rem; right: .7rem; min-height: 2.2rem; padding: .2rem .9rem; background: rgb(6 10 8 / .7); }
p { margin: 0; padding: .2rem .7rem; border-radius: 1rem; background: rgb(6 10 8 / .72); font-size: .86rem; }
progress { width: min(16rem, 80%); accent-color: var(--lqa-accent); }
ol { position: absolute; inset: auto 0 0; margin: 0; padding: 3rem 1rem .9rem; list-style: none; background: linear-gradient(transparent, rgb(6 10 8 / .85)); }
li { display: flex; justify-content: space-between; gap: 1rem; padding: .1rem 0; background: linear-gradient(#fff, #fff) 0 100% / calc(var(--score) * 100%) 2px no-repeat; opacity: .8; }
li:first-child { font-size: 1.35rem; font-weight: 650; opacity: 1; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
[hidden], :host([hidden]) { display: none; }`;
const attributes = ['labels', 'template', 'src', 'integrity', 'adapter'];
/** @type {Record<string, string>} */
const notes = {idle: 'The picture stays on this device.', asking: 'Waiting for permission', loading: 'Loading the model'};

/** @param {string} tag @param {object} props @param {string} [part] */
const make = (tag, props, part) => {
  const e = Object.assign(document.createElement(tag), props);
  if (part) e.setAttribute('part', part);
  return /** @type {any} */ (e);
};

export class LqaCamera extends /** @type {typeof HTMLElement} */ (globalThis.HTMLElement ?? Object) {
  static observedAttributes = attributes;
  /** @type {any} */ #look; // of connect
  /** @type {Promise<void> | undefined} */ #starting;
  #run = 0; // counts starts and stops: the earlier are stale
  #state = 'idle';
  /** @type {(s: import('./protocol.js').Scores) => void} */ #paint = () => {};
  #onhide = () => { if (document.hidden) this.stop(); };

  constructor() {
    super();
    const root = this.attachShadow({mode: 'open'});
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    root.adoptedStyleSheets = [sheet];
    this.video = make('video', {muted: true, playsInline: true}, 'video');
    this.button = make('button', {type: 'button', textContent: 'Start the camera', onclick: () => (this.#starting ? this.stop() : this.start().catch(() => {}))}, 'start');
    this.note = make('p', {textContent: notes.idle}, 'note');
    this.note.setAttribute('role', 'status');
    this.bar = make('progress', {hidden: true, ariaLabel: 'Loading the model'}, 'progress');
    this.list = make('ol', {hidden: true, ariaLabel: 'Answers'}, 'answers');
    this.off = make('button', {type: 'button', className: 'stop', textContent: 'Stop', hidden: true, onclick: () => { this.stop(); this.button.focus(); }}, 'stop');
    this.status = make('p', {className: 'hidden'});
    this.status.setAttribute('role', 'status');
    const middle = make('div', {className: 'middle'});
    middle.append(this.button, this.bar, this.note);
    this.frame = make('div', {className: 'frame'}, 'frame');
    this.frame.append(make('slot', {name: 'poster'}), this.video, middle, this.list, this.off, this.status);
    root.append(this.frame);
  }

  #get = (/** @type {string} */ name) => this.getAttribute(name) ?? '';
  get labels() { return this.#get('labels'); }
  /** @param {string | string[]} v */
  set labels(v) { this.setAttribute('labels', String(v)); }
  get template() { return this.#get('template'); }
  set template(v) { this.setAttribute('template', v); }
  get src() { return this.#get('src'); }
  set src(v) { this.setAttribute('src', v); }
  get integrity() { return this.#get('integrity'); }
  set integrity(v) { this.setAttribute('integrity', v); }
  get adapter() { return this.#get('adapter') || 'stream'; }
  set adapter(v) { this.setAttribute('adapter', v); }

  connectedCallback() {
    /** @type {any} */
    const self = this;
    for (const name of attributes) { // properties set before this file was loaded
      if (!Object.hasOwn(self, name)) continue;
      const value = self[name];
      delete self[name];
      self[name] = value;
    }
    document.addEventListener('visibilitychange', this.#onhide);
  }

  disconnectedCallback() {
    document.removeEventListener('visibilitychange', this.#onhide);
    this.stop();
  }

  /** @param {string} name */
  attributeChangedCallback(name) {
    if (!this.#look) return;
    const change = name === 'adapter' ? this.#look.adapt(this.adapter)
      : name === 'labels' || name === 'template' ? this.#look.label(this.#labels(), this.template) : undefined;
    change?.catch((/** @type {any} */ err) => this.#emit('error', {code: err.code, message: err.message}));
  }

  get state() { return this.#state; }

  /** Asks for the camera, then loads the engine; resolves when frames are answered. */
  start() { return this.#starting ??= this.#begin(++this.#run); }

  /** Turns the camera off; the engine ends with the last widget. */
  stop() {
    this.#run++;
    this.#starting = undefined;
    this.#look?.close();
    this.#look = undefined;
    if (this.#state !== 'idle') this.#enter('idle');
  }

  /** Makes the adapter forget what it has seen. */
  async reset() { await this.#look?.reset(); }

  /** Teaches that what is in view is this. @param {string} label */
  async teach(label) { return this.#look?.teach(label) ?? []; }

  /** Takes the newest example back. */
  async undo() { return this.#look?.undo() ?? []; }

  /** @param {number} run */
  async #begin(run) {
    try {
      await this.#open(run);
    } catch (err) {
      if (run !== this.#run) return; // stopped: nothing failed
      this.#starting = undefined;
      const {code, message, text} = (await import('./engine.js')).told(err);
      this.#failed(code, message, text);
      throw err;
    }
  }

  /** @param {number} run */
  async #open(run) {
    this.#enter('asking');
    const video = {facingMode: {ideal: 'environment'}, width: {ideal: 640}, height: {ideal: 480}};
    const asked = navigator.mediaDevices?.getUserMedia({video}); // first: iOS forgets the press
    const loading = Promise.all([import('./media.js'), import('./engine.js')]);
    loading.catch(() => {}); // told below
    const camera = asked ? await asked : await (await loading)[0].openCamera({}); // the latter says why not
    const live = () => {
      if (run !== this.#run) throw new Error('stopped');
    };
    try {
      live();
      this.#enter('loading');
      const [media, {connect, painter}] = await loading;
      live();
      this.video.classList.toggle('mirror', media.facing(camera) === 'user');
      this.#paint = painter(this.list, this.status);
      const src = this.src;
      const options = {url: new URL(src || 'model.shq', src ? document.baseURI : import.meta.url).href,
        integrity: this.integrity, labels: this.#labels(), template: this.template, adapter: this.adapter};
      const look = await connect(camera, this.video, options, (m) => { if (run === this.#run) this.#tell(m); },
        ({code, message, text}) => { if (run === this.#run) { this.stop(); this.#failed(code, message, text); } });
      if (run !== this.#run) return look.close();
      this.#look = look;
      this.#enter('running');
      this.#emit('ready', look.model);
    } catch (err) {
      for (const track of camera.getTracks()) track.stop(); // never leave the light on
      throw err;
    }
  }

  /** @param {import('./protocol.js').Reply} m */
  #tell(m) {
    if (m.kind === 'progress') {
      if (m.phase === 'fetch' && m.totalBytes) Object.assign(this.bar, {max: m.totalBytes, value: m.loadedBytes});
      this.#emit('progress', m);
    } else if (m.kind === 'result') {
      const {scores, none} = m.adapted;
      this.#paint(m.adapted);
      this.#emit('result', {...m, scores, none});
    }
  }

  #labels() { return this.labels.split(/[,\n]/).map((l) => l.trim()).filter(Boolean); }

  /** @param {string} code @param {string} message @param {string} text */
  #failed(code, message, text) {
    this.#enter('error');
    this.note.textContent = text;
    this.#emit('error', {code, message});
  }

  /** @param {string} state */
  #enter(state) {
    this.#state = this.frame.dataset.state = state;
    const focused = this.shadowRoot?.activeElement === this.button;
    this.button.hidden = state === 'running';
    this.button.textContent = {error: 'Try again', asking: 'Cancel', loading: 'Cancel'}[state] ?? 'Start the camera';
    this.off.hidden = state !== 'running';
    this.list.hidden = state !== 'running';
    this.bar.hidden = state !== 'loading';
    this.note.textContent = notes[state] ?? notes.idle;
    if (focused && state === 'running') this.off.focus();
    this.#emit('statechange', {state});
  }

  /** @param {string} name @param {object} detail */
  #emit(name, detail) { this.dispatchEvent(new CustomEvent(name, {detail})); }
}

if (globalThis.customElements && !customElements.get('lqa-camera')) customElements.define('lqa-camera', LqaCamera);
