// @ts-check
// The last minute: how sure both answers were, and how often each changed.

const stepMS = 500, steps = 120; // of the chart
const height = 60; // of the drawing, as web/index.html has it; a step is two units wide

/** @typedef {{n: number, same: number, sure: number[], changes: number[]}} Step */

/** @param {import('./protocol.js').Scores} s @returns {{label: string, score: number}} */
const best = ({scores, none}) => scores.length && scores[0].score >= none ? scores[0] : {label: '', score: none};

const percent = (/** @type {number} */ p) => `${Math.round(100 * p)}%`;
const times = (/** @type {number} */ n) => n === 1 ? 'once' : `${n} times`;

export class Chart {
  /** By the number of the step since the page began. @type {Map<number, Step>} */
  #steps = new Map();
  /** @type {string[]} */
  #labels = [];

  clear() {
    this.#steps.clear();
    this.#labels = [];
  }

  /** @param {number} now @param {import('./protocol.js').Scores} zeroShot @param {import('./protocol.js').Scores} adapted */
  add(now, zeroShot, adapted) {
    const at = Math.floor(now / stepMS), both = [best(zeroShot), best(adapted)];
    const step = this.#steps.get(at) ?? {n: 0, same: 0, sure: [0, 0], changes: [0, 0]};
    this.#steps.set(at, step);
    step.n++;
    if (both[0].label === both[1].label) step.same++;
    both.forEach(({label, score}, i) => {
      step.sure[i] += score;
      if (this.#labels.length && this.#labels[i] !== label) step.changes[i]++;
    });
    this.#labels = both.map(({label}) => label);
  }

  /** @param {number} now */
  draw(now) {
    const first = Math.floor(now / stepMS) - steps + 1;
    const lines = ['', ''];
    let differ = '', joined = false;
    /** @type {Step} */
    const all = {n: 0, same: 0, sure: [0, 0], changes: [0, 0]};
    for (const at of [...this.#steps.keys()]) if (at < first) this.#steps.delete(at);
    for (let i = 0; i < steps; i++) {
      const step = this.#steps.get(first + i);
      if (step) {
        all.n += step.n;
        all.same += step.same;
        for (const k of [0, 1]) {
          all.sure[k] += step.sure[k];
          all.changes[k] += step.changes[k];
          lines[k] += `${joined ? 'L' : 'M'}${2 * i} ${(height * (1 - step.sure[k] / step.n)).toFixed(1)}`;
        }
        if (2 * step.same < step.n) differ += `M${2 * i} ${height}h2`;
      }
      joined = Boolean(step);
    }
    const set = (/** @type {string} */ id, /** @type {string} */ d) => document.getElementById(id)?.setAttribute('d', d);
    set('chart-zero', lines[0]);
    set('chart-adapted', lines[1]);
    set('chart-differ', differ);
    const part = (/** @type {number} */ k) => `${percent(all.sure[k] / all.n)} sure, changed its answer ${times(all.changes[k])}`;
    const text = document.getElementById('chart-text');
    if (text && all.n) text.textContent = `Zero-shot: ${part(0)}. Adapted: ${part(1)}. They agreed in ${percent(all.same / all.n)} of the frames.`;
    document.getElementById('chart-figure')?.removeAttribute('hidden');
  }
}
