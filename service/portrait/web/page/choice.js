/** What a person has chosen: the page's one state, remembered between visits. */

import { recall, remember } from "./memory.js";

/** @typedef {"blur" | "color" | "image" | "mask" | "alpha" | "silhouette" | "pixelate" | "blur-person"} Mode */
/** @typedef {"all" | "largest" | "nearest-centre"} People */
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
 * @property {number} threshold of the mask, where edges are cut
 * @property {number} feather how soft they are
 * @property {boolean} decontaminate whether the old room's colour is taken out of them
 * @property {People} people who counts, where the box does all the work
 * @property {boolean} framing whether the picture follows the person, where the box does all the work
 */

/** The modes that hide the person: masks of the box's are not enough for them. @type {Mode[]} */
const HIDING = ["silhouette", "pixelate", "blur-person"];

/** @type {Way[]} in which the page composes with masks of the box's */
const SHARED = ["mask", "data"];

/**
 * What follows from a change: a mode that hides the person is made by the box where it would be shared, and ends where
 * the work is to be shared.
 *
 * @param {Choice} choice
 * @param {Partial<Choice>} changes
 * @returns {Partial<Choice>}
 */
export function completed(choice, changes) {
  const { mode, way } = { ...choice, ...changes };
  if (!HIDING.includes(mode) || !SHARED.includes(way)) return changes;
  return changes.way ? { ...changes, mode: "blur" } : { ...changes, way: "composite" };
}

/** Edges, framing and who counts by default. */
export const PLAIN = { threshold: 0.5, feather: 0.25, decontaminate: false, framing: false, people: /** @type {People} */ ("all") };

/** @typedef {Pick<Choice, "mode" | "color" | "background" | keyof typeof PLAIN>} Look what of it a session is told */

/** Of a number, the least and the largest. @type {{[name in keyof Choice]?: [number, number]}} */
const RANGES = { threshold: [0.2, 0.8], feather: [0.05, 0.5] };

/** @type {{[name in keyof Choice]?: string[]}} */
const ALLOWED = {
  mode: ["blur", "color", "image", "mask", "alpha", "silhouette", "pixelate", "blur-person"],
  way: ["composite", "mask", "data", "browser", "auto"],
  size: ["640x360", "640x480", "1280x720"],
  view: ["single", "pair", "wipe"],
  people: ["all", "largest", "nearest-centre"],
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
    ...PLAIN,
  };
  try {
    const kept = JSON.parse(recall("choice") ?? "{}");
    for (const name of /** @type {(keyof Choice)[]} */ (Object.keys(choice))) {
      if (fits(name, kept[name], choice)) Object.assign(choice, { [name]: kept[name] });
    }
  } catch {
    // Of another version: the defaults.
  }
  choice.beside = "camera"; // a second session is asked for each time anew
  Object.assign(choice, completed(choice, {}));
  return choice;
}

/** @param {keyof Choice} name @param {any} value @param {Choice} choice */
function fits(name, value, choice) {
  if (typeof value !== typeof choice[name]) return false;
  const [least, most] = RANGES[name] ?? [-Infinity, Infinity];
  if (typeof value === "number") return value >= least && value <= most;
  if (name === "color") return /^#[0-9a-f]{6}$/.test(value);
  return ALLOWED[name]?.includes(value) ?? true;
}

/**
 * What a session is told of it.
 *
 * @param {Choice} choice
 * @param {Way} [way] the session's
 * @returns {Look}
 */
export function lookOf(choice, way = choice.way) {
  const { mode, color, background, threshold, decontaminate } = choice;
  // A feather that reaches beyond 0 or 1 would show the room where there is no person.
  const feather = Math.min(choice.feather, threshold, 1 - threshold);
  return { mode, color, background, threshold, feather: Number(feather.toFixed(2)), decontaminate, framing: choice.framing && way === "composite", people: way === "composite" ? choice.people : "all" };
}

/** @param {Choice} choice */
export function rememberChoice(choice) {
  const { background, ...others } = choice;
  // The person's own picture is kept nowhere.
  remember("choice", JSON.stringify(typeof background === "string" ? choice : others));
}
