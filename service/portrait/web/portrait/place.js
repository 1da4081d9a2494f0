/** Deciding where a session's masks are made: on the box or in the page. */

import { Compositor } from "./compositor.js";
import { EXACT } from "./frames.js";
import { LocalSegmenter } from "./local.js";

/** @typedef {import("./types.js").Options} Options */
/** @typedef {import("./types.js").Result} Result */
/** @typedef {import("./types.js").Where} Where */

/** Milliseconds of an inference up to which "auto" keeps the work in the page: a third of a frame's time at 30 fps. */
const QUICK = 11;

/**
 * @typedef {object} Place
 * @property {Where} where
 * @property {Result} result what the box is to send
 * @property {string} reason for people; "" if the options say where
 * @property {string} model in the page; "" on the box, which tells
 * @property {LocalSegmenter} [segmenter] in the page
 */

/**
 * Decide by the options and by what this browser can do.
 *
 * @param {Options} options
 * @param {Result} result
 * @param {import("./signalling.js").Box} box
 * @returns {Promise<Place>}
 * @throws {Error} the options say "browser", which cannot do it
 */
export async function decide({ where = "box", model }, result, box) {
  /** @type {Place} */
  const onBox = { where: "box", result, reason: "", model: "" };
  if (!Compositor.available && (where !== "box" || result !== "composite")) {
    if (where === "browser") throw new Error("this browser has no WebGL 2: the box can do it");
    return { ...onBox, result: "composite", reason: "this browser has no WebGL 2" };
  }
  if (result === "mask" && !EXACT) {
    Object.assign(onBox, { result: "data", reason: "this browser does not tell which frame of a video it draws" });
  }
  if (where === "box") return onBox;
  try {
    const segmenter = await LocalSegmenter.open(box, model);
    const took = await segmenter.measure();
    const reason = `an inference takes ${took.toFixed(1)} ms in this browser`;
    if (where === "browser" || took <= QUICK) {
      return { where: "browser", result, reason, model: segmenter.name, segmenter };
    }
    segmenter.close();
    return { ...onBox, reason };
  } catch (error) {
    if (where === "browser") throw error;
    return { ...onBox, reason: `the network does not run in this browser: ${/** @type {Error} */ (error).message}` };
  }
}
