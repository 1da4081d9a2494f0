/** What a person has chosen: the page's one state, remembered between visits. */

import { recall, remember } from "./memory.js";

/** @typedef {"blur" | "color" | "image" | "mask" | "alpha"} Mode */
/** @typedef {"composite" | "mask" | "data" | "browser" | "auto"} Way who makes masks and picture */

/**
 * @typedef {object} Choice
 * @property {Mode} mode
 * @property {string} color #rrggbb
 * @property {string | File} background a name of the box's, or the person's own
 * @property {Way} way
 * @property {string} size of the camera, WxH
 * @property {string} device the camera's id; "" leaves it to the browser
 * @property {"single" | "pair" | "wipe"} view
 * @property {string} beside what the result is compared with: "camera", "mode:MODE", "way:WAY"
 * @property {boolean} mirror
 */

/** @type {{[name in keyof Choice]?: string[]}} */
const ALLOWED = {
  mode: ["blur", "color", "image", "mask", "alpha"],
  way: ["composite", "mask", "data", "browser", "auto"],
  size: ["640x360", "640x480", "1280x720"],
  view: ["single", "pair", "wipe"],
};

/** @returns {Choice} of the last visit, as far as it still can be */
export function recallChoice() {
  const narrow = matchMedia("(max-width: 40rem)").matches;
  /** @type {Choice} */
  const choice = {
    mode: "blur",
    color: "#00b140",
    background: "office",
    way: "composite",
    size: "640x480",
    device: "",
    view: narrow ? "single" : "pair",
    beside: "camera",
    mirror: true,
  };
  try {
    const kept = JSON.parse(recall("choice") ?? "{}");
    for (const name of /** @type {(keyof Choice)[]} */ (Object.keys(choice))) {
      const allowed = ALLOWED[name];
      const fits = allowed ? allowed.includes(kept[name]) : typeof kept[name] === typeof choice[name];
      if (fits && (name !== "color" || /^#[0-9a-f]{6}$/.test(kept.color))) Object.assign(choice, { [name]: kept[name] });
    }
  } catch {
    // Of another version: the defaults.
  }
  choice.beside = "camera"; // a second session is asked for each time anew
  return choice;
}

/** @param {Choice} choice */
export function rememberChoice(choice) {
  const { background, ...others } = choice;
  // The person's own picture is kept nowhere.
  remember("choice", JSON.stringify(typeof background === "string" ? choice : others));
}
