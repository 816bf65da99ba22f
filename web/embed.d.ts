// Types of <lqa-camera>, web/embed.js.
import type {Answer, Code, Example, Memory, ModelInfo, ProgressInfo, Score} from './protocol.js';

/** idle: nothing loaded, camera off. asking: the browser asks the visitor. */
export type State = 'idle' | 'asking' | 'loading' | 'running' | 'error';

/** An answer to one frame: the adapted scores, best first, and all else the engine says. */
export type ResultDetail = Answer & {scores: Score[]; none: number; memory: Memory};

export interface LqaCameraEventMap {
  statechange: CustomEvent<{state: State}>;
  progress: CustomEvent<ProgressInfo>;
  ready: CustomEvent<ModelInfo & {memory: Memory}>;
  result: CustomEvent<ResultDetail>;
  error: CustomEvent<{code: Code; message: string}>;
}

/**
 * Names what the camera sees, computed on this device. Nothing is loaded and
 * nothing asked before a press. The camera is off after stop, when the element
 * leaves the document and while the tab is hidden.
 *
 * Attributes, each also a property: labels (commas between), template ("a
 * photo of a {}"), src (the model's address), integrity (hex SHA-256 of its
 * manifest), adapter (stream, where none is given; zeroshot, average, sticky,
 * lqa or lqa+sticky). Slot: poster. Parts: frame, video,
 * start, note, progress, answers, answer, stop. Custom property: --lqa-accent.
 */
export class LqaCamera extends HTMLElement {
  get labels(): string;
  set labels(value: string | string[]);
  template: string;
  src: string;
  integrity: string;
  adapter: string;
  readonly state: State;
  /** Asks for the camera, then loads the engine; resolves when frames are answered. */
  start(): Promise<void>;
  /** Turns the camera off. */
  stop(): void;
  /** Makes the adapter forget what it has seen; what was taught stays. */
  reset(): Promise<void>;
  /**
   * Teaches that what is in view now is this label, one of those in use; three
   * examples a label are enough, the seventh takes the oldest one's place.
   * Resolves with all examples, the oldest first; none while the camera is off.
   * Rejects with a code: teach.nothing before the first answer, teach.label.
   */
  teach(label: string): Promise<Example[]>;
  /** Takes the newest example back; resolves with those that are left. */
  undo(): Promise<Example[]>;
  addEventListener<K extends keyof LqaCameraEventMap>(type: K, listener: (this: LqaCamera, event: LqaCameraEventMap[K]) => unknown, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
}

declare global {
  interface HTMLElementTagNameMap {
    'lqa-camera': LqaCamera;
  }
}
