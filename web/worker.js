// @ts-check
// The engine's worker: loads the Go binary in its engine role and carries
// messages between it and the page. The first message may bring the compiled
// module, {module}; otherwise the worker fetches and compiles it itself.
import './wasm_exec.js';
import {pixels} from './pixels.js';

/** @type {any} */
const scope = globalThis;
/** @type {MessageEvent[]} */
const early = []; // what comes before Go listens

scope.lqaRole = 'engine';
scope.lqaPixels = pixels;
scope.lqaSend = (/** @type {string} */ json) => scope.postMessage(JSON.parse(json));

/** @param {MessageEvent} event */
function receive(event) {
  const {image, module, ...request} = event.data ?? {};
  if (module) return;
  if (scope.lqaReceive) scope.lqaReceive(JSON.stringify(request), image);
  else early.push(event);
}
scope.onmessage = receive;

/** @returns {Promise<WebAssembly.Module>} */
async function compile() {
  const first = await new Promise((resolve) => {
    scope.addEventListener('message', (/** @type {MessageEvent} */ e) => resolve(e.data?.module), {once: true});
  });
  if (first) return first;
  const url = new URL('lqa.wasm', import.meta.url);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname}: the server answered ${response.status}`);
  return WebAssembly.compileStreaming(response);
}

try {
  const go = new scope.Go();
  const instance = await WebAssembly.instantiate(await compile(), go.importObject);
  const ended = go.run(instance); // Go listens when this returns
  for (const event of early.splice(0)) receive(event);
  await ended;
  throw new Error('the engine stopped');
} catch (err) {
  scope.postMessage({kind: 'error', id: 0, code: 'load.engine', message: err instanceof Error ? err.message : String(err)});
}
