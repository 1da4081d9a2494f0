/**
 * The call: camera, result and what stands beside it, brought to what is wanted step by step.
 *
 * Whatever a person chooses while it connects, or while the browser asks them for the camera, is only noted; the next
 * step finds it. So nothing is ever done twice at once, and the last choice holds.
 */

import { openCamera } from "./camera.js";
import { lookOf } from "./choice.js";
import { Pane } from "./pane.js";
import { inWords, Trouble } from "./words.js";

/** @typedef {import("./choice.js").Choice} Choice */
/** @typedef {import("./choice.js").Look} Look */
/** @typedef {"idle" | "connecting" | "live" | "failed"} State */

/**
 * @typedef {object} Told what the page is told
 * @property {(state: State, text: string) => void} state
 * @property {(words: import("./words.js").Words | null) => void} trouble
 * @property {(camera: MediaStream | null) => void} camera opened, or closed
 * @property {(session: import("./pane.js").Session | null) => void} session the result's
 * @property {(look: Look) => void} kept a look was refused; this one stays
 * @property {() => void} alone what the result was compared with has ended
 */

export class Call {
  /** Whether it is wanted at all. */
  on = false;
  #main = new Pane();
  #other = new Pane();
  /** @type {MediaStream | null} */
  #camera = null;
  #opened = "";
  #settling = false;
  #again = false;

  /**
   * @param {Choice} choice read at every step
   * @param {{main: HTMLVideoElement, other: HTMLVideoElement}} videos
   * @param {Told} told
   */
  constructor(choice, videos, told) {
    this.choice = choice;
    this.videos = videos;
    this.told = told;
  }

  /** Whether the result is there. */
  get live() {
    return this.#main.session !== null;
  }

  start() {
    this.on = true;
    this.told.trouble(null);
    this.settle();
  }

  stop() {
    this.on = false;
    this.settle();
    if (this.#settling) this.told.state("idle", "Camera off"); // as soon as the step under way is done
  }

  /** Make it as it is wanted now. */
  async settle() {
    this.#again = true; // also for the loop that has just found nothing to do, and has not ended yet
    if (this.#settling) return;
    this.#settling = true;
    try {
      while (this.#again) {
        this.#again = false;
        if (await this.#step()) this.#again = true;
      }
    } finally {
      this.#settling = false;
    }
  }

  /** End it because the page is left. */
  leave() {
    this.on = false;
    this.#release();
  }

  /** Do the first thing that is not as it is wanted; whether there was one. */
  async #step() {
    if (!this.on) return this.#release();
    const { size, device, way } = this.choice;
    try {
      if (this.#camera === null || this.#opened !== `${size} ${device}`) return await this.#openCamera(size, device);
      if (this.#main.way !== way) return await this.#connect(this.#camera, way);
    } catch (error) {
      if (this.on) this.#fail(error); // else it was stopped meanwhile, or its camera lost, which is told already
      return true;
    }
    return (await this.#wear(this.#main, lookOf(this.choice))) || (await this.#beside(this.#camera));
  }

  /** @param {string} size @param {string} device */
  async #openCamera(size, device) {
    this.#release();
    this.told.state("connecting", "Waiting for the camera");
    const camera = await openCamera(size, device);
    [this.#camera, this.#opened] = [camera, `${size} ${device}`];
    camera.getVideoTracks()[0].addEventListener("ended", () => this.#camera === camera && this.#lost());
    this.told.camera(camera);
    return true;
  }

  /** @param {MediaStream} camera @param {import("./choice.js").Way} way */
  async #connect(camera, way) {
    this.#main.close();
    this.told.session(null);
    this.told.state("connecting", "Connecting");
    await this.#main.open(this.videos.main, camera, way, lookOf(this.choice), ({ type, detail }) => {
      if (type === "closed") this.#fail(this.#main.session?.error ?? ended(detail));
      else if (type === "retry") this.#retry(detail);
      else if (type === "refused") this.told.trouble(detail === null ? null : refused(detail).words);
      else if (detail.state === "live") this.#live();
      else if (detail.state === "reconnecting") this.told.state("connecting", "Reconnecting");
    });
    if (camera !== this.#camera) return true; // given back while it connected: the next step closes this
    this.told.session(this.#main.session);
    this.#live();
    return true;
  }

  /** What stands beside the result: the camera, or a session of its own. @param {MediaStream} camera */
  async #beside(camera) {
    const { view, beside, way } = this.choice;
    const [kind, value] = beside.split(":");
    const video = this.videos.other;
    if (view === "single" || kind === "camera") {
      const had = this.#other.session !== null;
      this.#other.close();
      if (video.srcObject !== camera) video.srcObject = camera;
      return had;
    }
    const wanted = /** @type {import("./choice.js").Way} */ (kind === "way" ? value : way);
    const look = { ...lookOf(this.choice, wanted), ...(kind === "mode" && { mode: /** @type {Look["mode"]} */ (value) }) };
    if (this.#other.way === wanted) return this.#wear(this.#other, look);
    this.#other.close();
    try {
      await this.#other.open(video, camera, wanted, look, ({ type, detail }) => {
        if (type === "closed") this.#loseOther(this.#other.session?.error ?? ended(detail));
      });
    } catch (error) {
      this.#loseOther(error);
    }
    return true;
  }

  /** @param {Pane} pane @param {Look} look */
  async #wear(pane, look) {
    try {
      return await pane.wear(look);
    } catch (error) {
      if (!this.on) return true; // it was closed meanwhile
      this.told.trouble(inWords(error));
      // What it still shows; without this the next step would ask for the same again.
      if (pane.look) this.told.kept({ ...pane.look, ...(pane === this.#other && { mode: this.choice.mode }) });
      return true;
    }
  }

  #live() {
    this.told.trouble(null);
    this.told.state("live", "Live");
  }

  /** @param {{error: unknown, seconds: number}} detail */
  #retry({ error, seconds }) {
    const words = inWords(error);
    this.told.trouble({ ...words, advice: `${words.advice} This page will try again by itself.`, wait: Math.round(seconds) });
  }

  #lost() {
    this.#fail(new Trouble("The camera is gone", "It was unplugged, switched off or taken over by another program. Start it again."));
  }

  #fail(/** @type {unknown} */ error) {
    this.on = false;
    this.#release();
    this.told.state("failed", "Stopped");
    this.told.trouble(inWords(error));
  }

  #loseOther(/** @type {unknown} */ error) {
    this.#other.close();
    this.told.trouble(inWords(error));
    this.told.alone();
  }

  /** Give everything back; false, since nothing is left to do then. */
  #release() {
    const had = this.#camera !== null;
    this.#main.close();
    this.#other.close();
    for (const track of this.#camera?.getTracks() ?? []) track.stop();
    [this.#camera, this.#opened] = [null, ""];
    if (had) {
      this.told.session(null);
      this.told.camera(null);
      this.videos.main.srcObject = this.videos.other.srcObject = null;
      this.told.state("idle", "Camera off");
    }
    return false;
  }
}

/** The box refuses frames: the picture stands still. @param {string} why */
function refused(why) {
  return new Trouble("The box refuses the camera's pictures", "Choose a smaller size under “Camera and work”.", why);
}

/** Why a session ended, where the box named no reason. @param {string} why */
function ended(why) {
  return new Trouble("The session has ended", "Start the camera again to continue.", why);
}
