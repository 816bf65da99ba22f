// Our engine in a page of its own, by its protocol: bench.load(config) once, then bench.run(n), n frames timed by the worker.
globalThis.bench = (() => {
  const ask = async (request, image) => {
    const reply = await lqa.ask(request, image);
    if (reply.kind === 'error') throw new Error(reply.message);
    return reply;
  };
  let time = 0;
  // Frames as a camera gives them.
  const canvas = new OffscreenCanvas(224, 224), context = canvas.getContext('2d');
  const frame = () => {
    context.fillStyle = time % 200 ? 'teal' : 'maroon';
    context.fillRect(0, 0, 224, 224);
    return new VideoFrame(canvas, {timestamp: time * 1000});
  };
  return {
    async load({model, simd, threads}) {
      const {defaults, ...loaded} = await ask({kind: 'load', url: model, simd, threads});
      await ask({kind: 'open', session: 'bench', labels: defaults});
      return {simd: loaded.simd, threads: loaded.threads ?? 1, kernelBytes: loaded.memory.kernel};
    },
    async run(n) {
      const ms = [];
      for (let i = 0; i < n; i++) {
        const {encodeMS} = await ask({kind: 'frame', session: 'bench', time: time += 100}, frame());
        ms.push(encodeMS);
      }
      return ms;
    },
  };
})();
