/** The live numbers, in words where words say more. */

import { find, write } from "./dom.js";
import { QUALITY } from "./words.js";

/** @typedef {import("./pane.js").Session} Session */
/** @typedef {import("../portrait/types.js").Stats} Stats */

const REFRESH = 1000;

/** Refreshes that "lately" reaches back. */
const LATELY = 10;

const TILES = ["fps", "latency", "dropped", "presence", "quality"];
const FIELDS = [...TILES, "size", "output", "model", "trip", "connection", "at-mask", "at-picture"];

export class Numbers {
  /** @type {Session | null} */
  #session = null;
  /** @type {MediaStream | null} */
  #camera = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  /** @type {number[]} drops so far, at each of the last refreshes */
  #drops = [];
  /** What the tiles' notes say while there are no numbers. */
  #atRest = new Map(TILES.map((id) => [id, find(`${id}-note`, HTMLElement).textContent ?? ""]));

  /** @param {MediaStream | null} camera */
  follow(camera) {
    this.#camera = camera;
  }

  /** Tell of this session from now on; of none with null. @param {Session | null} session */
  show(session) {
    clearInterval(this.#timer);
    [this.#session, this.#drops] = [session, []];
    if (session === null) return this.#rest();
    this.#tellPlace(session);
    this.#timer = setInterval(() => this.#refresh(), REFRESH);
  }

  #rest() {
    for (const id of FIELDS) write(id, "–");
    for (const [id, text] of this.#atRest) write(`${id}-note`, text);
    for (const item of find("flow", HTMLOListElement).querySelectorAll("li + li")) item.removeAttribute("data-at");
    write("place", "");
  }

  /** Where masks are made and the picture is composed, and why. */
  #tellPlace(/** @type {Session} */ { where, result, reason }) {
    const composed = where === "browser" || result !== "composite" ? "browser" : "box";
    this.#put("at-mask", where);
    this.#put("at-picture", composed);
    find("connection", HTMLElement).closest("li")?.setAttribute("data-at", where);
    const sentence =
      where === "browser"
        ? "This browser does everything; the camera’s picture stays here."
        : composed === "box"
          ? "The box makes the masks and the picture."
          : "The box makes the masks, this browser the picture.";
    write("place", reason ? `${sentence} (${reason})` : sentence);
  }

  #put(/** @type {string} */ id, /** @type {"box" | "browser"} */ place) {
    write(id, place === "box" ? "the box" : "this browser");
    find(id, HTMLElement).closest("li")?.setAttribute("data-at", place);
  }

  async #refresh() {
    const session = this.#session;
    try {
      const stats = await session?.stats();
      if (stats && session === this.#session) this.#tell(stats);
    } catch {
      // Between two connections there are no numbers; the session itself says when it is over.
    }
  }

  #tell(/** @type {Stats} */ stats) {
    const { framesPerSecond, latency, width, height, where, roundTrip, relayed } = stats;
    write("fps", framesPerSecond.toFixed(0));
    write("fps-note", framesPerSecond >= 24 ? "smooth" : framesPerSecond >= 14 ? "a little uneven" : "uneven: try a smaller size");
    write("latency", `${(latency * 1000).toFixed(0)} ms`);
    this.#tellDrops(stats.dropped);
    this.#tellPresence(stats.presence);
    const [name, meaning] = QUALITY[stats.quality] ?? [stats.quality, ""];
    write("quality", name);
    const reused = stats.quality === "full" && stats.carried ? "masks are made when the outline moves" : meaning;
    write("quality-note", where === "browser" ? "every mask is made in this browser" : reused);
    const { width: w = 0, height: h = 0 } = this.#camera?.getVideoTracks()[0]?.getSettings() ?? {};
    write("size", w ? `${w} × ${h}` : "–");
    write("output", width ? `${width} × ${height}` : "–");
    write("model", stats.model ? `network ${stats.model}` : "–");
    write("connection", where === "browser" ? "none needed" : relayed ? "through a relay" : "direct");
    write("trip", where === "browser" ? "nothing is sent" : `${(roundTrip * 1000).toFixed(0)} ms round trip`);
  }

  #tellPresence(/** @type {import("../portrait/types.js").Presence | null} */ presence) {
    write("presence", presence ? (presence.present ? "Somebody" : "Nobody") : "–");
    const share = presence?.present ? `${(100 * presence.share).toFixed(0)} % of the picture; ` : "";
    write("presence-note", `${share}not for counting or safety`);
  }

  #tellDrops(/** @type {number} */ dropped) {
    const before = this.#drops.at(-1) ?? 0;
    if (dropped < before) this.#drops = []; // another connection, which counts anew
    this.#drops = [...this.#drops, dropped].slice(-LATELY - 1);
    const lately = dropped - this.#drops[0];
    write("dropped", dropped.toLocaleString("en"));
    write("dropped-note", lately ? `${lately} in the last ${LATELY} s` : "none recently");
  }
}
