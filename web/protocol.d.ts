// The page ⇄ engine contract, twin of wasm/proto. Written from it: go test ./wasm/proto -update

/** Version of the protocol. */
export type Version = 1;

/** Kind names a message. A request carries an id; the reply carries it back. */
export type Kind =
  | 'hello' // both ways, first; unequal versions end the session
  | 'load' // → progress*, loaded (image stage), loaded (text stage); or error
  | 'open' // → opened: a session with labels and an adapter
  | 'labels' // → opened: other labels for a session; its adapter starts over
  | 'frame' // → result
  | 'adapt' // → done: chooses the session's adapter
  | 'reset' // → done: forgets what the adapter has learned
  | 'close' // → done: ends a session
  | 'teach' // → taught: the session's newest picture is an example of the label
  | 'unteach' // → taught: takes an example back
  | 'freeze' // → done: answers go on, learning stops or goes on
  | 'watch' // → done: results tell who voted, and bring views that enter the cache; with an effect, all
  | 'effect' // → done: makes the model's view hard
  | 'save' // → saved: all that the session has learned and was taught
  | 'restore' // → restored: takes up what was saved for the same model and labels
  | 'progress'
  | 'loaded'
  | 'opened'
  | 'result'
  | 'dropped' // a frame, or labels, that newer ones of the session overtook
  | 'done'
  | 'taught'
  | 'saved'
  | 'restored'
  | 'error';

/** Request is any message from the page. */
export interface Request {
  kind: Kind;
  id: number;
  version?: number; // hello
  url?: string; // load
  integrity?: string; // load: hex SHA-256 of the manifest
  simd?: string; // load: simd128 or relaxed; "": whichever is fastest
  threads?: number; // load: at most so many; 0: as the engine sees fit
  session?: string; // all but hello and load
  labels?: string[]; // open, labels
  template?: string; // open, labels: "{}" stands for the label; "" means the model's own
  adapter?: string; // open, adapt: a name of the registry
  time?: number; // frame: milliseconds since the session began
  still?: boolean; // frame: a single picture; the adapter neither learns nor answers
  label?: string; // teach: one of the session's
  example?: number; // unteach: its number
  taught?: boolean; // reset: forgets what was taught too
  on?: boolean; // freeze, watch
  effect?: string; // effect: one of the model's list; "": none
  strength?: number; // effect: 1 to 5
}

/** Reply is any message from the engine. */
export type Reply =
  | {kind: 'hello'; id: number; session?: string} & {version: number}
  | {kind: 'progress'; id: number; session?: string} & ProgressInfo
  | {kind: 'loaded'; id: number; session?: string} & ModelInfo & {memory: Memory}
  | {kind: 'opened'; id: number; session?: string} & SessionInfo
  | {kind: 'result'; id: number; session?: string} & Answer & {memory: Memory; view?: ImageData}
  | {kind: 'dropped'; id: number; session?: string}
  | {kind: 'done'; id: number; session?: string}
  | {kind: 'taught'; id: number; session?: string} & Lessons & {view?: ImageData}
  | {kind: 'saved'; id: number; session?: string} & {state: Uint8Array}
  | {kind: 'restored'; id: number; session?: string} & Lessons
  | {kind: 'error'; id: number; session?: string} & Error;

/** ProgressInfo tells how far loading has come. */
export interface ProgressInfo {
  phase: string; // fetch (each piece is verified as it comes), warm-up
  loadedBytes: number;
  totalBytes: number;
}

/** ModelInfo describes the model; it comes with loaded. */
export interface ModelInfo {
  stage: string; // image: default labels can be answered; text: any label
  model: string;
  hash: string; // hex SHA-256 of the manifest
  simd: string; // simd128 or relaxed
  threads: number; // that run the kernels; 1 where the page is not isolated
  kernels: string; // how the matrix products run, for people
  defaults: string[];
  templates: string[];
  adapters: string[];
  methods: Method[]; // the adapters once more, for people
  effects: string[];
  loadMS: number;
}

/** Method is an adapter in words. */
export interface Method {
  name: string;
  title: string;
  doc: string; // one sentence
}

/** SessionInfo answers open and labels. */
export interface SessionInfo {
  labels: string[]; // as used: trimmed, without doubles
  known: boolean[]; // stands in the model's ready table
  embedMS: number;
}

/** Lessons are what a session was taught; they come with taught and restored. */
export interface Lessons {
  taught: Example[]; // oldest first
  replaced: number; // number of the example that made room for the newest; 0: none
  adapter: string; // of the session
}

/** Example is one picture that was taught. */
export interface Example {
  example: number; // its number, from 1; never given again
  label: string;
}

/** Answer is the result of one frame. */
export interface Answer {
  zeroShot: Scores;
  adapted: Scores;
  time: number; // of the frame, as sent
  viewMS: number;
  encodeMS: number;
  adaptMS: number;
  report: Report;
}

/** Scores are best first; None is the probability of "none of these". */
export interface Scores {
  scores: Score[];
  none: number;
}

/** Score is one label's probability, 0..1. */
export interface Score {
  label: string;
  score: number;
}

/** Memory is in bytes, but for mallocs. */
export interface Memory {
  kernel: number;
  weights: number;
  activations: number;
  goHeap: number;
  mallocs: number; // objects that Go has ever allocated; like goHeap up to a second old
  state: number;
}

/** Report is what the adapter is doing. */
export interface Report {
  method: string;
  entries: number;
  shift: number;
  text: string;
  stickiness: number; // of the answer before, 0 to 1
  entered: number; // slot of the cache that took this frame in, or -1
  voted?: Vote[]; // where watched: the weightiest, at most eight
}

/** Vote is what a frame of the cache, or a taught one, added to its label. */
export interface Vote {
  slot: number; // of the cache; of a taught one, its example's number
  label: string;
  taught: boolean;
  weight: number; // in logits
}

/** Error has a code that programs branch on and a message that people read. */
export interface Error {
  code: Code;
  message: string;
}

/** Code names a failure. */
export type Code =
  | 'proto.version'
  | 'proto.bad-message'
  | 'session.unknown'
  | 'labels.none'
  | 'labels.too-many'
  | 'adapter.unknown'
  | 'effect.unknown' // or its strength
  | 'teach.label' // the session does not have it
  | 'teach.example' // taken back already, or replaced
  | 'teach.nothing' // no picture was looked at yet
  | 'state.bad' // damaged, or of other labels or another model
  | 'text.not-ready'
  | 'load.fetch'
  | 'load.changed' // on the server, since its beginning was read
  | 'shq.magic'
  | 'shq.version'
  | 'shq.truncated'
  | 'shq.corrupt'
  | 'shq.too-large'
  | 'shq.integrity'
  | 'device.no-simd'
  | 'device.memory'
  | 'image.bad'
  | 'load.not-loaded'
  | 'load.engine' // the engine itself did not start, or ended
  | 'internal'
  | 'camera.denied'
  | 'camera.none'
  | 'camera.busy'
  | 'camera.unfit' // the one that was asked for cannot do it
  | 'camera.insecure' // not https, not localhost
  | 'camera.unsupported' // the browser has no camera interface
  | 'camera.lost' // unplugged, or taken away while it ran
  | 'camera.failed'
  | 'file.unreadable' // neither a picture nor a video that the browser can open;

/** What travels as the image of a frame: transferred, and closed by the engine. */
export type Picture = VideoFrame | ImageBitmap | ImageData;
