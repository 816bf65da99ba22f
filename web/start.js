// @ts-check
// Compiling the binary and starting the engine's worker, for page and widget.

/** @param {URL} url @returns {Promise<WebAssembly.Module>} */
export async function compile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname}: the server answered ${response.status}`);
  if (response.headers.get('Content-Type')?.startsWith('application/wasm')) return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(await response.arrayBuffer()); // a host that does not know the type
}

/** @type {{createScriptURL(url: string): any} | undefined} */
let policy;

/** A script's address, as a trusted one where the document asks for that. @param {string} name @returns {any} */
function address(name) {
  const url = new URL(name, import.meta.url).href;
  /** @type {any} */
  const types = globalThis;
  if (!types.trustedTypes) return url;
  try {
    policy ??= types.trustedTypes.createPolicy('lqa', {createScriptURL: (/** @type {string} */ u) => u});
  } catch {
    return url; // the document allows no such policy; it may not need one
  }
  return policy ? policy.createScriptURL(url) : url;
}

/**
 * Starts a worker in the engine role.
 * @param {(reply: any) => void} receive is called with each reply; {kind: 'error', id: 0} is the engine's end
 * @param {Promise<WebAssembly.Module>} [module] compiled already; without it the worker does so itself
 * @returns {Worker}
 */
export function startWorker(receive, module) {
  const worker = new Worker(address('worker.js'), {type: 'module', name: module ? 'module' : 'engine'});
  const failed = (/** @type {string} */ message) => receive({kind: 'error', id: 0, code: 'load.engine', message});
  worker.onmessage = (event) => receive(event.data);
  worker.onerror = (event) => { event.preventDefault(); failed(event.message || 'the worker did not start'); };
  worker.onmessageerror = () => failed('a message could not be read');
  if (module) module.then((m) => worker.postMessage({module: m}), (err) => failed(String(err)));
  return worker;
}

/** Starts a thread of the kernels, from the engine's worker. @returns {Worker} */
export function startHelper() {
  return new Worker(address('helper.js'), {type: 'module', name: 'helper'});
}
