// @ts-check
// Small pictures of what the model saw, and what the page keeps in this
// browser. Nothing here leaves the device.

const thumbSide = 64;

/** A picture in small. @param {ImageData} view @returns {HTMLCanvasElement} */
export function thumb(view) {
  const whole = document.createElement('canvas');
  paint(whole, view);
  const canvas = Object.assign(document.createElement('canvas'), {width: thumbSide, height: thumbSide});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  if (context) {
    context.imageSmoothingQuality = 'high';
    context.drawImage(whole, 0, 0, thumbSide, thumbSide);
  }
  return canvas;
}

/** Shows pixels as they are, or a thumbnail once more; nothing empties it.
 * @param {HTMLCanvasElement} canvas @param {ImageData | HTMLCanvasElement} [from] */
export function paint(canvas, from) {
  const {width, height} = from ?? canvas;
  if (canvas.width !== width || canvas.height !== height || !from) Object.assign(canvas, {width, height});
  const context = canvas.getContext('2d', {willReadFrequently: true}); // thumbnails are
  if (from instanceof ImageData) context?.putImageData(from, 0, 0);
  else if (from) context?.drawImage(from, 0, 0);
}

/**
 * @typedef {{key: string, model: string, labels: string, at: number, state: Uint8Array, thumbs: [number, ImageData][]}} Kept
 * What is kept for a model and labels: the session's state, and the taught views by number.
 */

const maxKept = 4; // lists of labels; the oldest go

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const settled = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** @param {IDBTransactionMode} mode @returns {Promise<IDBObjectStore>} */
async function store(mode) {
  const open = indexedDB.open('lqa', 1);
  open.onupgradeneeded = () => open.result.createObjectStore('states', {keyPath: 'key'});
  const db = await settled(open);
  const transaction = db.transaction('states', mode);
  transaction.oncomplete = transaction.onabort = () => db.close();
  return transaction.objectStore('states');
}

const keyOf = (/** @type {string} */ model, /** @type {string} */ labels) => `${model}\n${labels}`;

/**
 * What was kept for this model and these labels. stale: only for another model, which is thrown out.
 * @param {string} model @param {string} labels
 * @returns {Promise<{kept?: Kept, thumbs?: [number, HTMLCanvasElement][], stale?: boolean}>}
 */
export async function recall(model, labels) {
  const states = await store('readwrite');
  /** @type {Kept | undefined} */
  const kept = await settled(states.get(keyOf(model, labels)));
  if (kept) {
    return {kept, thumbs: kept.thumbs.map(([n, view]) => {
      const canvas = document.createElement('canvas');
      paint(canvas, view);
      return [n, canvas];
    })};
  }
  /** @type {Kept[]} */
  const all = await settled(states.getAll());
  const stale = all.filter((k) => k.labels === labels);
  for (const k of stale) states.delete(k.key);
  return {stale: stale.length > 0};
}

/** @param {string} model @param {string} labels @param {Uint8Array} state @param {[number, HTMLCanvasElement][]} thumbs */
export async function keep(model, labels, state, thumbs) {
  const pixels = thumbs.map(([n, canvas]) => /** @type {[number, ImageData?]} */ ([n, canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height)]));
  const states = await store('readwrite');
  await settled(states.put({key: keyOf(model, labels), model, labels, at: Date.now(), state, thumbs: pixels.filter(([, view]) => view)}));
  /** @type {Kept[]} */
  const all = await settled(states.getAll());
  all.sort((a, b) => b.at - a.at);
  for (const k of all.slice(maxKept)) states.delete(k.key);
}

/** @param {string} model @param {string} labels */
export async function forget(model, labels) {
  await settled((await store('readwrite')).delete(keyOf(model, labels)));
}

/** Gives the visitor a file. @param {Uint8Array<ArrayBuffer>} state @param {string} name */
export function download(state, name) {
  const url = URL.createObjectURL(new Blob([state]));
  Object.assign(document.createElement('a'), {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const maxFile = 32 << 20; // as the engine takes

/** @param {File} file @returns {Promise<Uint8Array>} */
export async function readFile(file) {
  if (file.size > maxFile) throw Object.assign(new Error(`${file.size} bytes`), {code: 'state.bad'});
  return new Uint8Array(await file.arrayBuffer());
}
