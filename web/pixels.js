// @ts-check
// Pictures into kernel memory.

/** @type {OffscreenCanvasRenderingContext2D | null} */
let context = null;
let direct = true; // VideoFrame.copyTo converts to RGBA, as far as we know

/**
 * Writes an image's RGBA bytes into target and closes the image. One that is
 * larger than capacity pixels is shrunk by the browser first.
 * @param {VideoFrame | ImageBitmap | ImageData} image
 * @param {Uint8ClampedArray} target
 * @param {number} capacity in pixels
 * @returns {Promise<{width: number, height: number}>}
 */
export async function pixels(image, target, capacity) {
  if (image instanceof ImageData && image.width * image.height <= capacity) {
    target.set(image.data);
    return {width: image.width, height: image.height};
  }
  try {
    const frame = typeof VideoFrame !== 'undefined' && image instanceof VideoFrame ? image : null;
    let [width, height] = 'displayWidth' in image ? [image.displayWidth, image.displayHeight] : [image.width, image.height];
    if (!(width > 0 && height > 0)) throw new Error('the picture is empty');
    const plain = frame?.visibleRect?.width === width && frame.visibleRect.height === height && // not stretched, not turned
      !(/** @type {any} */ (frame).rotation);
    if (direct && frame && plain && width * height <= capacity) {
      try {
        await frame.copyTo(target.subarray(0, width * height * 4), {format: 'RGBA'});
        return {width, height};
      } catch {
        direct = false; // an older browser: draw and read back instead
      }
    }
    const scale = Math.min(1, Math.sqrt(capacity / (width * height)));
    width = Math.max(1, Math.floor(width * scale));
    height = Math.max(1, Math.floor(height * scale));
    const source = image instanceof ImageData ? await createImageBitmap(image) : image;
    if (!context || context.canvas.width !== width || context.canvas.height !== height) {
      context = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true, alpha: false});
      if (!context) throw new Error('this browser has no canvas in workers');
      context.imageSmoothingQuality = 'high';
    }
    context.fillStyle = '#fff'; // transparent pictures stand on white
    context.fillRect(0, 0, width, height);
    context.drawImage(source, 0, 0, width, height);
    target.set(context.getImageData(0, 0, width, height).data);
    return {width, height};
  } finally {
    if ('close' in image) image.close();
  }
}
