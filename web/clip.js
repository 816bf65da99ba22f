// @ts-check
// A short clip for those without a camera: photographs, three seconds each
// under a slow pan and zoom. It is drawn, so there is no video to download.

const holdMS = 3000;
const width = 640, height = 480;

/** @param {string} url @returns {Promise<HTMLImageElement>} */
async function open(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Where a picture is looked at, t from 0 to 1. Each picture moves its own way.
 * @param {CanvasRenderingContext2D} ctx @param {HTMLImageElement} image @param {number} index @param {number} t */
function draw(ctx, image, index, t) {
  const fit = Math.max(width / image.naturalWidth, height / image.naturalHeight);
  const zoom = fit * (index % 2 ? 1.25 - 0.2 * t : 1.05 + 0.2 * t);
  const w = image.naturalWidth * zoom, h = image.naturalHeight * zoom;
  const turn = index * 2.4; // radians, so that neighbours move differently
  const x = 0.5 + 0.4 * (t - 0.5) * Math.cos(turn), y = 0.5 + 0.4 * (t - 0.5) * Math.sin(turn);
  ctx.drawImage(image, (width - w) * x, (height - h) * y, w, h);
}

/**
 * Starts the clip.
 * @param {string[]} urls pictures, shown over and over
 * @param {(index: number) => void} showing is told which one comes
 * @returns {Promise<{stream: MediaStream, stop: () => void}>}
 */
export async function startClip(urls, showing) {
  const images = await Promise.all(urls.map(open));
  const canvas = Object.assign(document.createElement('canvas'), {width, height});
  const ctx = canvas.getContext('2d', {alpha: false});
  if (!ctx) throw new Error('this browser has no canvas');
  ctx.imageSmoothingQuality = 'high';
  const stream = canvas.captureStream(30);
  let last = -1, request = 0;
  const start = performance.now();
  /** @param {number} now */
  const step = (now) => {
    const t = Math.max(0, now - start) / holdMS;
    const index = Math.floor(t) % images.length;
    if (index !== last) showing(last = index);
    draw(ctx, images[index], index, t % 1);
    request = requestAnimationFrame(step);
  };
  step(start);
  return {stream, stop: () => {
    cancelAnimationFrame(request);
    for (const track of stream.getTracks()) track.stop();
  }};
}
