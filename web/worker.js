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
scope.lqaPixels = pixels;
scope.lqaHelper = startHelper;
scope.lqaSend = (/** @type {string} */ json) => scope.postMessage(JSON.parse(json));

/** @type {(module: WebAssembly.Module) => void} */
let begin = () => {};
/** @type {Promise<WebAssembly.Module>} */
const compiled = scope.name === 'module' ? new Promise((resolve) => { begin = resolve; })
  : compile(new URL('lqa.wasm', import.meta.url));

/** @param {MessageEvent} event */
function receive(event) {
  const {image, module, ...request} = event.data ?? {};
  if (module) begin(module);
  else if (scope.lqaReceive) scope.lqaReceive(JSON.stringify(request), image);
  else early.push(event);
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
