/** Whether a person is in the picture, by the masks of one stream: the rule of service/portrait/core/presence.py. */

/** @typedef {import("./types.js").Presence} Presence */

/** The person's share of the picture from which on they are present; half of it, and they stay so. */
const AREA = 0.01;

/** Seconds for which a person must be seen to be present, and nobody for nobody to be. */
const [ENTER, LEAVE] = [0.5, 3];

/** Seconds between two frames, at most, that count. */
const LONGEST_STEP = 1;

/** Probabilities above this are a person's. */
const PERSON = 127;

/** Pixels of a row or column from which on it counts for the box. */
const FEWEST = 3;

export class PresenceTracker {
  #present = false;
  #at = performance.now() / 1000;
  #against = 0;

  /** @type {(mask: import("./masks.js").Mask) => Presence} */
  follow(mask) {
    const now = performance.now() / 1000;
    const step = Math.min(now - this.#at, LONGEST_STEP);
    this.#at = now;
    const { share, box } = measure(mask);
    const seen = share >= (this.#present ? AREA / 2 : AREA);
    this.#against = seen === this.#present ? 0 : this.#against + step;
    if (this.#against >= (this.#present ? LEAVE : ENTER)) [this.#present, this.#against] = [seen, 0];
    return { present: this.#present, share, box };
  }
}

/** @type {(mask: import("./masks.js").Mask) => Pick<Presence, "share" | "box">} */
function measure({ values, width, height }) {
  const [columns, rows] = [new Uint32Array(width), new Uint32Array(height)];
  let count = 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (values[i] <= PERSON) continue;
      count++;
      columns[x]++;
      rows[y]++;
    }
  }
  const [left, right] = span(columns);
  const [top, bottom] = span(rows);
  const share = count / values.length;
  if (left < 0 || top < 0) return { share, box: null };
  const box = { left: left / width, top: top / height, width: (right - left + 1) / width, height: (bottom - top + 1) / height };
  return { share, box };
}

/** The first and the last line with enough pixels. */
function span(/** @type {Uint32Array} */ counts) {
  return [counts.findIndex((count) => count >= FEWEST), counts.findLastIndex((count) => count >= FEWEST)];
}
