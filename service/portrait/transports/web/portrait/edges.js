/**
 * Masks whose contours follow the picture's: service/portrait/edges.py once more, for masks made in the page.
 *
 * A guided filter on luma (K. He, J. Sun, X. Tang, "Guided Image Filtering", ECCV 2010, equations 5, 6 and 8) at half the
 * mask's size, over 5 by 5 pixels.
 */

const RADIUS = 2;

/** Variance of luma below which a neighbourhood counts as flat. */
const FLAT = 1e-3 * 255 ** 2;

/**
 * @param {import("./masks.js").Mask} mask
 * @param {Uint8ClampedArray} pixels RGBA of the picture at the mask's size
 * @returns {import("./masks.js").Mask}
 */
export function followEdges({ values, width, height }, pixels) {
  const [w, h] = [width >> 1, height >> 1];
  const mean = (/** @type {Float32Array} */ plane) => box(plane, w, h);
  const guide = halved((i) => 16 + 0.257 * pixels[4 * i] + 0.504 * pixels[4 * i + 1] + 0.098 * pixels[4 * i + 2], w, h);
  const small = halved((i) => values[i], w, h);
  const [meanGuide, meanSmall] = [mean(guide), mean(small)];
  const [both, squares] = [mean(guide.map((g, i) => g * small[i])), mean(guide.map((g) => g * g))];
  const slope = guide.map((_, i) => (both[i] - meanGuide[i] * meanSmall[i]) / (squares[i] - meanGuide[i] ** 2 + FLAT));
  const offset = mean(slope.map((s, i) => meanSmall[i] - s * meanGuide[i]));
  const fitted = mean(slope).map((s, i) => Math.min(255, Math.max(0, s * guide[i] + offset[i])));
  return { values: doubled(fitted, w, h), width, height };
}

/** Means of 2 by 2 values at half the size. */
function halved(/** @type {(index: number) => number} */ at, /** @type {number} */ w, /** @type {number} */ h) {
  const small = new Float32Array(w * h);
  for (let y = 0, i = 0; y < h; y++) {
    for (let x = 0; x < w; x++, i++) {
      const first = 4 * w * y + 2 * x;
      small[i] = (at(first) + at(first + 1) + at(first + 2 * w) + at(first + 2 * w + 1)) / 4;
    }
  }
  return small;
}

/** Bilinear, at twice the size, rounded. */
function doubled(/** @type {Float32Array} */ small, /** @type {number} */ w, /** @type {number} */ h) {
  const values = new Uint8Array(4 * w * h);
  for (let y = 0, i = 0; y < 2 * h; y++) {
    const near = w * (y >> 1);
    const far = w * Math.min(h - 1, Math.max(0, (y >> 1) + (y & 1 ? 1 : -1)));
    for (let x = 0; x < 2 * w; x++, i++) {
      const left = x >> 1;
      const right = Math.min(w - 1, Math.max(0, left + (x & 1 ? 1 : -1)));
      values[i] = Math.round(
        (9 * small[near + left] + 3 * (small[near + right] + small[far + left]) + small[far + right]) / 16,
      );
    }
  }
  return values;
}

/** Means over the neighbourhood; beyond an edge the plane is mirrored. */
function box(/** @type {Float32Array} */ plane, /** @type {number} */ w, /** @type {number} */ h) {
  return line(line(plane, w, h, 1, w), h, w, w, 1);
}

/** @type {(plane: Float32Array, length: number, lines: number, step: number, stride: number) => Float32Array} */
function line(plane, length, lines, step, stride) {
  const means = new Float32Array(plane.length);
  const mirrored = (/** @type {number} */ i) => (i < 0 ? -i : i >= length ? 2 * length - 2 - i : i);
  for (let n = 0; n < lines; n++) {
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (let k = i - RADIUS; k <= i + RADIUS; k++) sum += plane[n * stride + mirrored(k) * step];
      means[n * stride + i * step] = sum / (2 * RADIUS + 1);
    }
  }
  return means;
}
