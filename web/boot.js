// @ts-check
// Starts the page: compiles the Go binary once, runs it here in its page role
// and hands the compiled module to the worker, which runs it as the engine.
// Nothing is imported up front, so that a file that is missing can be told.

/** @type {any} */
const scope = globalThis;

/** The binary could not be run: nothing else will say so. @param {unknown} err */
function failed(err) {
  const say = (/** @type {string} */ id, /** @type {string} */ text) => {
    const e = document.getElementById(id);
    if (e) Object.assign(e, {textContent: text, hidden: false});
  };
  document.documentElement.dataset.state = 'error';
  document.getElementById('notice')?.setAttribute('data-code', 'load.engine');
  say('load-phase', 'Not loaded');
  say('notice-title', 'The page’s program did not load');
  say('notice-text', 'Check the connection and load the page again. It needs a browser with WebAssembly.');
  say('notice-detail', err instanceof Error ? err.message : String(err));
  say('notice-retry', 'Load the page again');
  document.getElementById('notice-retry')?.addEventListener('click', () => location.reload());
  document.getElementById('notice')?.removeAttribute('hidden');
}

try {
  const [{compile, startWorker}, media, {startClip}, {attach}] = await Promise.all([
    import('./start.js'), import('./media.js'), import('./clip.js'), import('./learn.js'),
    // @ts-ignore: comes with the Go toolchain, when the site is built
    import('./wasm_exec.js'),
  ]);
  const module = compile(new URL('lqa.wasm', import.meta.url));
  scope.lqaRole = 'page';
  scope.lqaMedia = {...media, startClip};
  scope.lqaWorker = (/** @type {(reply: any) => void} */ receive) => attach((hear) => startWorker(hear, module), receive);
  const go = new scope.Go();
  const instance = await WebAssembly.instantiate(await module, go.importObject);
  await go.run(instance);
  throw new Error('the page’s program ended');
} catch (err) {
  failed(err);
}
