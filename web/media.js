// @ts-check
// Cameras, pictures and videos: what is asynchronous and browser-specific.
// The page (Go) and the widget both come through here. Everything that fails
// throws a Failure with a code of protocol.d.ts.

/** @typedef {import('./protocol.js').Code} Code */

export class Failure extends Error {
  /** @param {Code} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Codes of what getUserMedia throws. @type {Record<string, Code>} */
const causes = {
  NotAllowedError: 'camera.denied', SecurityError: 'camera.denied',
  NotFoundError: 'camera.none', DevicesNotFoundError: 'camera.none',
  NotReadableError: 'camera.busy', TrackStartError: 'camera.busy', AbortError: 'camera.busy',
  OverconstrainedError: 'camera.unfit',
};

/** @param {unknown} err @returns {Failure} */
export function explain(err) {
  if (err instanceof Failure) return err;
  const e = err instanceof Error ? err : new Error(String(err));
  return new Failure(causes[e.name] ?? 'camera.failed', e.message || e.name);
}

/**
 * What getUserMedia is asked for. 640 × 480 is far above what the model sees
 * and cheap to move.
 * @param {{deviceId?: string, facing?: string}} wish
 * @returns {MediaStreamConstraints}
 */
export function constraints({deviceId, facing}) {
  /** @type {MediaTrackConstraints} */
  const video = {width: {ideal: 640}, height: {ideal: 480}};
  if (deviceId) video.deviceId = {exact: deviceId};
  else if (facing) video.facingMode = {ideal: facing};
  return {video, audio: false};
}

/** @param {{deviceId?: string, facing?: string}} wish @returns {Promise<MediaStream>} */
export async function openCamera(wish) {
  if (!isSecureContext) throw new Failure('camera.insecure', 'not a secure context');
  if (!navigator.mediaDevices?.getUserMedia) throw new Failure('camera.unsupported', 'no navigator.mediaDevices');
  try {
    return await navigator.mediaDevices.getUserMedia(constraints(wish));
  } catch (err) {
    throw explain(err);
  }
}

/** @param {MediaStream} stream */
export function stopStream(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** Which way a camera looks. One that does not say, as on a desk, looks at its user. @param {MediaStream} stream */
export function facing(stream) {
  return stream.getVideoTracks()[0]?.getSettings().facingMode ?? 'user';
}

/** @param {MediaStream} stream */
export function facesKnown(stream) {
  return Boolean(stream.getVideoTracks()[0]?.getSettings().facingMode);
}

/** The cameras there are, by name. @param {MediaStream} stream */
export async function cameras(stream) {
  const current = stream.getVideoTracks()[0]?.getSettings().deviceId;
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((d) => d.kind === 'videoinput')
    .map((d, i) => ({id: d.deviceId, label: d.label || `Camera ${i + 1}`, current: d.deviceId === current}));
}

/**
 * Plays a stream or a video's address; resolves when there is a first frame.
 * @param {HTMLVideoElement} video
 * @param {MediaStream | string} source
 */
export async function play(video, source) {
  clear(video);
  const ready = new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Failure('file.unreadable', video.error?.message || 'the video cannot be played'));
  });
  if (typeof source === 'string') video.src = source;
  else video.srcObject = source;
  // Not awaited: some browsers hold play() until the page is seen again.
  video.play().catch(() => {});
  await ready;
  if (!video.videoWidth) throw new Failure('file.unreadable', 'there is no picture in this video');
}

/** @param {HTMLVideoElement} video */
export function clear(video) {
  video.onloadeddata = video.onerror = null;
  video.pause();
  video.srcObject = null;
  if (video.hasAttribute('src')) {
    video.removeAttribute('src');
    video.load();
  }
}

/** @param {HTMLVideoElement} video @returns {Promise<VideoFrame | ImageBitmap>} */
async function grab(video) {
  if (typeof VideoFrame !== 'undefined') {
    try {
      return new VideoFrame(video);
    } catch { /* an older browser, or a frame that is gone: ask the other way */ }
  }
  return createImageBitmap(video);
}

/**
 * Sends a video's frames, one at a time: while one is being answered the
 * others pass, then the newest is next. send is given a picture, which it
 * owns, and a function to call once it is answered.
 * @param {HTMLVideoElement} video
 * @param {(image: VideoFrame | ImageBitmap, done: () => void) => void} send
 * @returns {() => void} ends it
 */
export function watch(video, send) {
  let busy = false, fresh = false, ended = false;
  const byFrame = 'requestVideoFrameCallback' in video;
  const wait = () => byFrame ? video.requestVideoFrameCallback(tick) : requestAnimationFrame(tick);
  const done = () => { busy = false; next(); };
  async function next() {
    if (busy || !fresh || ended) return;
    busy = true;
    fresh = false;
    try {
      const image = await grab(video);
      if (ended) image.close();
      else send(image, done);
    } catch { // no frame yet: wait for the next one
      busy = false;
    }
  }
  function tick() {
    if (ended) return;
    fresh = true;
    next();
    wait();
  }
  wait();
  return () => { ended = true; };
}

/** Shows a picture from an address. @param {HTMLImageElement} image @param {string} url */
export async function showPicture(image, url) {
  image.src = url;
  try {
    await image.decode();
  } catch (err) {
    throw new Failure('file.unreadable', err instanceof Error ? err.message : String(err));
  }
}

/** @param {HTMLImageElement} image */
export async function grabPicture(image) {
  try {
    return await createImageBitmap(image);
  } catch (err) {
    throw new Failure('image.bad', err instanceof Error ? err.message : String(err));
  }
}

/** The list of sample photographs. */
export async function loadSamples() {
  const response = await fetch('samples/samples.json');
  if (!response.ok) throw new Failure('internal', `samples: the server answered ${response.status}`);
  return response.json();
}
