/**
 * Masks whose contours follow the picture's: service/portrait/core/guided_filter.py once more, for masks made in the page.
 *
 * A guided filter on luma (K. He, J. Sun, X. Tang, "Guided Image Filtering", ECCV 2010, equations 5, 6 and 8) at half the
 * mask's size.
 */

/** How far the neighbourhood of a pixel reaches to every side, as a share of the shorter one. */
const REACH = 1 / 48;

/** Variance of luma below which a neighbourhood counts as flat. */
const FLAT = 1e-3 * 255 ** 2;

/** Levels of luma by which a person's pixels may differ before their mask is no prior any more: as in pipeline.py. */
const CHANGED = 10;

/** @typedef {{luma: Float32Array, width: number, height: number}} Guide */

/**
 * The luma of a picture at half its size.
 *
 * @param {Uint8ClampedArray} pixels RGBA of the picture at the mask's size
 * @param {number} width
 * @param {number} height
 * @returns {Guide}
 */
export function makeGuide(pixels, width, height) {
  const at = (/** @type {number} */ i) =>
    16 + 0.257 * pixels[4 * i] + 0.504 * pixels[4 * i + 1] + 0.098 * pixels[4 * i + 2];
  return { luma: halved(at, width >> 1, height >> 1), width: width >> 1, height: height >> 1 };
}

/**
 * Whether something else is where the person was, so that the mask says nothing about the next picture.
 *
 * @param {Guide} before
 * @param {Guide} after of the same size
 * @param {import("./masks.js").Mask} mask of the picture before
 */
export function hasChanged(before, after, mask) {
  const person = halved((i) => mask.values[i], before.width, before.height);
  let [sum, count] = [0, 0];
  for (let i = 0; i < person.length; i++) {
    if (person[i] <= 127) continue;
    sum += Math.abs(before.luma[i] - after.luma[i]);
    count++;
  }
  return sum > CHANGED * count;
}

/**
 * @param {import("./masks.js").Mask} mask
 * @param {Guide} guide of its picture
 * @returns {import("./masks.js").Mask}
 */
export function followEdges({ values, width, height }, { luma, width: w, height: h }) {
  const radius = Math.round(Math.min(w, h) * REACH);
  const mean = (/** @type {Float32Array} */ plane) => line(line(plane, w, h, 1, w, radius), h, w, w, 1, radius);
  const small = halved((i) => values[i], w, h);
  const [meanLuma, meanSmall] = [mean(luma), mean(small)];
  const [both, squares] = [mean(luma.map((l, i) => l * small[i])), mean(luma.map((l) => l * l))];
  const slope = luma.map((_, i) => (both[i] - meanLuma[i] * meanSmall[i]) / (squares[i] - meanLuma[i] ** 2 + FLAT));
  const offset = mean(slope.map((s, i) => meanSmall[i] - s * meanLuma[i]));
  const fitted = mean(slope).map((s, i) => Math.min(255, Math.max(0, s * luma[i] + offset[i])));
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

/**
 * Means over the neighbourhood along the lines of a plane; beyond an edge it is mirrored.
 *
 * @type {(plane: Float32Array, length: number, lines: number, step: number, stride: number, radius: number) => Float32Array}
 */
function line(plane, length, lines, step, stride, radius) {
  const means = new Float32Array(plane.length);
  const mirrored = (/** @type {number} */ i) => (i < 0 ? -i : i >= length ? 2 * length - 2 - i : i);
  for (let n = 0; n < lines; n++) {
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (let k = i - radius; k <= i + radius; k++) sum += plane[n * stride + mirrored(k) * step];
      means[n * stride + i * step] = sum / (2 * radius + 1);
    }
  }
  return means;
}
