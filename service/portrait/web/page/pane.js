/** One of the pictures on the stage: a session of portrait.js, and how it looks. */

import { connect } from "/portrait.js";

/** @typedef {import("./choice.js").Way} Way */
/** @typedef {import("./choice.js").Look} Look */
/** @typedef {Awaited<ReturnType<typeof connect>>} Session */

/** @param {Way} way @returns {import("../portrait/types.js").Options} */
export function optionsOf(way) {
  return way === "browser" || way === "auto" ? { where: way } : { result: way };
}

export class Pane {
  /** @type {Session | null} */
  session = null;
  /** @type {Way | null} */
  way = null;
  /** @type {Look | null} what it shows now */
  look = null;
  #watching = new AbortController();

  /**
   * Connect; the video shows it when this returns.
   *
   * @param {HTMLVideoElement} video
   * @param {MediaStream} camera
   * @param {Way} way
   * @param {Look} look
   * @param {(event: CustomEvent) => void} tell what the session says: "state", "retry", "refused", "closed"
   */
  async open(video, camera, way, look, tell) {
    const session = await connect(camera, { ...optionsOf(way), ...look });
    this.#watching = new AbortController();
    const { signal } = this.#watching;
    for (const type of ["state", "retry", "refused", "closed"]) {
      session.addEventListener(type, (event) => tell(/** @type {CustomEvent} */ (event)), { signal });
    }
    [this.session, this.way, this.look] = [session, way, look];
    video.srcObject = session.output;
  }

  /**
   * Change how it looks, where it looks otherwise.
   *
   * @param {Look} look
   * @returns {Promise<boolean>} whether anything had to be changed
   */
  async wear(look) {
    const [session, before] = [this.session, this.look];
    if (!session || !before) return false;
    const names = /** @type {(keyof Look)[]} */ (Object.keys(look));
    const changed = names.filter((name) => look[name] !== before[name]);
    if (!changed.length) return false;
    await session.wear(Object.fromEntries(changed.map((name) => [name, look[name]])));
    this.look = look;
    return true;
  }

  close() {
    this.#watching.abort(); // the caller knows that it is closed
    this.session?.close("stopped");
    this.session = this.way = this.look = null;
  }
}
