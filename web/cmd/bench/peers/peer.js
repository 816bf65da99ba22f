// Another engine in a page of its own: bench.load(config) once, then bench.run(n), n frames timed one by one. A frame is: input array in,
// embedding out, on the page's main thread.
globalThis.bench = (() => {
  const floats = async (url) => new Float32Array(await (await fetch(url)).arrayBuffer());
  const cosine = (a, b) => {
    let ab = 0, aa = 0, bb = 0;
    for (let i = 0; i < b.length; i++) { ab += a[i] * b[i]; aa += a[i] * a[i]; bb += b[i] * b[i]; }
    return ab / Math.sqrt(aa * bb);
  };
  const channelsLast = (x, side) => x.map((_, i) => x[(i % 3) * side * side + Math.floor(i / 3)]);

  const engines = {
    async 'onnxruntime-web'({modules, model, threads, side}, x) {
      const ort = await import(`${modules}onnxruntime-web/dist/ort.wasm.min.mjs`);
      ort.env.wasm.wasmPaths = `${modules}onnxruntime-web/dist/`;
      ort.env.wasm.numThreads = threads;
      ort.env.logLevel = 'error';
      const session = await ort.InferenceSession.create(model, {executionProviders: ['wasm'], graphOptimizationLevel: 'all'});
      const input = new ort.Tensor('float32', x, [1, 3, side, side]);
      return async () => (await session.run({[session.inputNames[0]]: input}))[session.outputNames[0]].data;
    },
    async litert({modules, model, threads, side, last, wasm}, x) {
      const names = document.createElement('script');
      names.type = 'importmap';
      names.textContent = JSON.stringify({imports: {'@litertjs/wasm-utils': `${modules}@litertjs/wasm-utils/dist/index.js`}});
      document.head.append(names);
      const rt = await import(`${modules}@litertjs/core/dist/index.js`);
      await rt.loadLiteRt(modules + wasm, {threads: threads > 1});
      const compiled = await rt.loadAndCompile(model, {accelerator: 'wasm', cpuOptions: {numThreads: threads}});
      const values = last ? channelsLast(x, side) : x, shape = last ? [1, side, side, 3] : [1, 3, side, side];
      return async () => {
        const input = new rt.Tensor(values, shape), output = await compiled.run([input]);
        const y = output[0].toTypedArray().slice();
        input.delete();
        for (const t of output) t.delete();
        return y;
      };
    },
  };

  let frame;
  return {
    async load(config) {
      if (!crossOriginIsolated) throw new Error('the page is not isolated');
      frame = await engines[config.engine](config, await floats(config.input));
      return {cosine: cosine(await frame(), await floats(config.embedding))};
    },
    async run(n) {
      const ms = [];
      for (let i = 0; i < n; i++) {
        const begin = performance.now();
        await frame();
        ms.push(performance.now() - begin);
      }
      return ms;
    },
  };
})();
