// @ts-check
// The engine's worker: loads the Go binary in its engine role and carries
// messages between it and the page. A worker whose name is "module" is sent the
// compiled binary, {module}; any other fetches and compiles it itself.
import './wasm_exec.js';
import {pixels} from './pixels.js';
import {compile, startHelper} from './start.js';

/** @type {any} */
const scope = globalThis;
/** @type {MessageEvent[]} */
const early = []; // what comes before Go listens

scope.lqaRole = 'engine';
scope.lqaHelper = startHelper;

// Messages pass to and from Go as bytes of JSON, in arrays that are kept.
const encoder = new TextEncoder(), decoder = new TextDecoder();
let bytes = new Uint8Array(1024);
scope.lqaSend = (/** @type {Uint8Array} */ reply, /** @type {number} */ n, /** @type {Uint8ClampedArray?} */ view, /** @type {Uint8Array?} */ state) => {
  const m = JSON.parse(decoder.decode(reply.subarray(0, n)));
  if (view) m.view = new ImageData(new Uint8ClampedArray(view), Math.sqrt(view.length / 4)); // copied out of the kernels' memory
  if (state) m.state = state;
  scope.postMessage(m);
};
scope.lqaPixels = (/** @type {VideoFrame} */ image, /** @type {Uint8ClampedArray} */ target, /** @type {number} */ capacity) => {
  pixels(image, target, capacity).then(({width, height}) => scope.lqaPixelsDone(width, height, ''),
    (err) => scope.lqaPixelsDone(0, 0, String(err)));
};

/** @type {(module: WebAssembly.Module) => void} */
let begin = () => {};
/** @type {Promise<WebAssembly.Module>} */
const compiled = scope.name === 'module' ? new Promise((resolve) => { begin = resolve; })
  : compile(new URL('lqa.wasm', import.meta.url));

/** @param {MessageEvent} event */
function receive(event) {
  const {image, state, module, ...request} = event.data ?? {};
  if (module) begin(module);
  else if (scope.lqaReceive) {
    const json = JSON.stringify(request);
    if (bytes.length < 3 * json.length) bytes = new Uint8Array(3 * json.length); // UTF-8 at its longest
    scope.lqaReceive(bytes, encoder.encodeInto(json, bytes).written, image ?? state);
  } else early.push(event);
}
scope.onmessage = receive;

try {
  const go = new scope.Go();
  const instance = await WebAssembly.instantiate(await compiled, go.importObject);
  const ended = go.run(instance); // Go listens when this returns
  for (const event of early.splice(0)) receive(event);
  await ended;
  throw new Error('the engine stopped');
} catch (err) {
  scope.postMessage({kind: 'error', id: 0, code: 'load.engine', message: err instanceof Error ? err.message : String(err)});
}
