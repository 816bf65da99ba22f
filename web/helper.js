// @ts-check
// A thread of the engine's kernels: it holds their module and their memory,
// no Go, and sleeps inside help between frames.

/** @type {any} */
const scope = globalThis;

scope.onmessage = (/** @type {MessageEvent<{module: WebAssembly.Module, memory: WebAssembly.Memory, tid: number}>} */ event) => {
  const {module, memory, tid} = event.data;
  const {help} = /** @type {{help(tid: number): void}} */ (/** @type {unknown} */ (new WebAssembly.Instance(module, {env: {memory}}).exports));
  scope.postMessage(tid);
  help(tid);
};
