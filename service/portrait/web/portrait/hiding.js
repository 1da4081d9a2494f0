/**
 * What the modes that hide the person hide of one stream, as service/portrait/core/hiding.py: the person's share and a
 * margin around it, and for a moment what was theirs before.
 */

/** Seconds in which a pixel that was certainly the person is forgotten, in even steps. */
const HOLD = 0.5;

/** Seconds for which masks without a person are not believed after a frame without a mask. */
const DOUBT = 0.5;

/** Seconds between two frames, at most, that count for both. */
const LONGEST_STEP = 0.1;

/** Probabilities above this are a person's. */
const PERSON = 127;

export class HiddenArea {
  #held = new Uint8Array();
  #at = 0;
  #doubt = 0;

  /**
   * @param {import("./masks.js").Mask | null} mask of the present frame
   * @param {Uint8Array} steep the share of each probability
   * @param {number} margin
   * @returns {Uint8Array | null} 255 where a pixel of the mask's is hidden, else 0; null where everything is
   */
  follow(mask, steep, margin) {
    const now = performance.now() / 1000;
    const step = Math.min(now - this.#at, LONGEST_STEP);
    this.#at = now;
    if (mask === null) {
      this.#doubt = DOUBT;
      return null;
    }
    const { values, width, height } = mask;
    const faded = Math.round((255 * step) / HOLD);
    const held = this.#held.length === values.length ? this.#held : new Uint8Array(values.length);
    this.#held = values.map((value, i) => Math.max(value, held[i] - faded));
    this.#doubt = values.some((value) => value > PERSON) ? 0 : Math.max(this.#doubt - step, 0);
    if (this.#doubt > 0) return null;
    return widen(this.#held.map((value) => (steep[value] ? 255 : 0)), width, height, Math.ceil(margin * Math.min(width, height)));
  }
}

/** An area that reaches further to all sides, first along rows, then along columns. */
function widen(/** @type {Uint8Array} */ area, /** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ reach) {
  const rows = stretch(area, width, height, 1, width, reach);
  return stretch(rows, height, width, width, 1, reach);
}

/** @type {(area: Uint8Array, length: number, lines: number, step: number, next: number, reach: number) => Uint8Array} */
function stretch(area, length, lines, step, next, reach) {
  const wide = new Uint8Array(area.length);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < length; i++) {
      if (!area[line * next + i * step]) continue;
      const last = Math.min(i + reach, length - 1);
      for (let j = Math.max(i - reach, 0); j <= last; j++) wide[line * next + j * step] = 255;
    }
  }
  return wide;
}
