// Speaks the protocol with the worker from an empty page. ask resolves with the
// reply that ends a request, plain makes a picture to send. askCopy keeps the picture.
globalThis.lqa = (() => {
	const worker = new Worker('/worker.js', {type: 'module'});
	const waiting = new Map();
	let next = 1;
	worker.onmessage = ({data}) => {
		const w = waiting.get(data.id);
		if (!w || data.kind === 'progress' || (data.kind === 'loaded' && data.stage === 'image')) return;
		waiting.delete(data.id);
		w(data);
	};
	const post = (request, image) => {
		const id = next++;
		worker.postMessage(image ? {...request, id, image} : {...request, id}, image ? [image] : []);
		return id;
	};
	const ask = (request, image) => new Promise((resolve) => waiting.set(post(request, image), resolve));
	const askCopy = (request, image) => new Promise((resolve) => {
		const id = next++;
		waiting.set(id, resolve);
		worker.postMessage({...request, id, image});
	});
	const plain = (w, h, color) => {
		const c = new OffscreenCanvas(w, h);
		const x = c.getContext('2d');
		const g = x.createLinearGradient(0, 0, w, h);
		g.addColorStop(0, color);
		g.addColorStop(1, 'white');
		x.fillStyle = g;
		x.fillRect(0, 0, w, h);
		return c.transferToImageBitmap();
	};
	return {worker, ask, askCopy, plain};
})();
0
