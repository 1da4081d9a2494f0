/** Where masks are made: on the box, or in the page. */

import { Compositor } from "./compositor.js";
import { LocalSegmenter } from "./local.js";

/** Milliseconds of an inference up to which "auto" keeps the work in the page: a third of a frame's time at 30 fps. */
const QUICK = 11;

/**
 * Settle where masks are made, and what comes back; the segmenter when that is here.
 *
 * @param {import("./signalling.js").Box} box
 * @param {import("./types.js").Options} options
 * @returns {Promise<{where: import("./types.js").Where, result: import("./types.js").Result, reason: string,
 *   segmenter: LocalSegmenter | null}>}
 * @throws {Error} it was asked for here, and cannot be here
 */
export async function settle(box, { where = "box", result = "composite", model }) {
  const onBox = (/** @type {typeof result} */ got, /** @type {string} */ reason) =>
    ({ where: /** @type {const} */ ("box"), result: got, reason, segmenter: null });
  if ((where !== "box" || result !== "composite") && !Compositor.available) {
    if (where === "browser") throw new Error("this browser has no WebGL 2: the box can do it");
    return onBox("composite", "this browser has no WebGL 2");
  }
  if (where === "box") return onBox(result, "");
  try {
    const segmenter = await LocalSegmenter.open(box, model);
    const took = await segmenter.measure();
    const reason = `an inference takes ${took.toFixed(1)} ms in this browser`;
    if (where === "browser" || took <= QUICK) return { where: "browser", result, reason, segmenter };
    segmenter.close();
    return onBox(result, reason);
  } catch (error) {
    if (where === "browser") throw error;
    return onBox(result, `the network does not run in this browser: ${/** @type {Error} */ (error).message}`);
  }
}
