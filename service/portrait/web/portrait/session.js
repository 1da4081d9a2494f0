/** A session: a camera, where its masks are made, and what comes of it; it lives on through lost connections. */

import { MODES } from "./compositor.js";
import { Link } from "./link.js";
import { dress, isName, lookOf } from "./look.js";
import { unpackMask } from "./masks.js";
import { pause, watchNetwork } from "./network.js";
import { decide } from "./place.js";
import { Box, PortraitError } from "./signalling.js";
import { Studio } from "./studio.js";

/** @import {Look, Mode, Options, Result, State, Stats, Where} from "./types.js" */

/** Milliseconds between attempts: the first, and the longest. */
const [FIRST_WAIT, LONGEST_WAIT] = [300, 10_000];

/**
 * Put a camera before another background.
 *
 * @param {MediaStream} stream with a video track
 * @param {Options} [options]
 * @returns {Promise<PortraitSession>}
 * @throws {PortraitError} the box refuses
 * @throws {TypeError} the box cannot be reached
 */
export async function connect(stream, options = {}) {
  const session = new PortraitSession(stream, options);
  try {
    await session.open();
  } catch (error) {
    session.close("never opened");
    throw error;
  }
  return session;
}

/**
 * Made by `connect`.
 *
 * Events: "state" (detail: {state, reason}) whenever the state changes; "where" (detail: {where, result, reason}) when it
 * is known where masks are made; "retry" (detail: {error, seconds}) when an attempt to come back has failed, and how long
 * it is to the next; "closed" (detail: why), once.
 */
export class PortraitSession extends EventTarget {
  /** The composed video; the same stream through every reconnection. */
  output = new MediaStream();
  /** @type {State} */
  state = "connecting";
  /** @type {Where} where masks are made */
  where = "box";
  /** @type {Result} */
  result;
  /** Why it is made there, for people; "" where it was asked for. */
  reason = "";
  /** @type {PortraitError | null} what the box refused when that ended the session */
  error = null;
  #box;
  #camera;
  #options;
  /** @type {Link | null} */
  #link = null;
  /** @type {Studio | null} */
  #studio = null;
  /** @type {Look} */
  #look;
  #worn = Promise.resolve();
  #model = "";
  #ended = new AbortController();

  /**
   * @param {MediaStream} stream
   * @param {Options} options
   */
  constructor(stream, options) {
    super();
    [this.#camera] = stream.getVideoTracks();
    if (!this.#camera) throw new TypeError("the stream has no video track");
    this.#options = options;
    this.result = options.result ?? "composite";
    this.#look = lookOf(options);
    this.#box = new Box(options.server ?? "", options.token);
  }

  /** The canvas the page composes on, with an alpha channel in mode cutout; null where the box composes. */
  get canvas() {
    return this.#studio?.compositor.canvas ?? null;
  }

  /** Called by `connect`. */
  async open() {
    const place = await decide(this.#options, this.result, this.#box);
    [this.where, this.result, this.reason, this.#model] = [place.where, place.result, place.reason, place.model];
    this.#tell("where", { where: this.where, result: this.result, reason: this.reason });
    if (this.where === "browser" || this.result !== "composite") {
      this.#studio = new Studio(this.#camera, place.segmenter);
      this.output.addTrack(this.#studio.composed.track);
      await dress(this.#studio.compositor, this.#look, this.#box);
    }
    const { signal } = this.#ended;
    this.#camera.addEventListener("ended", () => this.close("the camera's track ended"), { signal });
    if (this.where === "box") {
      await this.#connect();
      watchNetwork(() => this.#restart(), signal);
    }
    this.#change("live", "");
  }

  /** @param {Mode} mode */
  async setMode(mode) {
    await this.wear({ mode });
  }

  /** @param {string} color #rrggbb */
  async setColor(color) {
    await this.wear({ color });
  }

  /** @param {string | Blob} background a name the box knows, a data URL, or a file */
  async setBackground(background) {
    await this.wear({ background });
  }

  /** @returns {Promise<Stats>} since the call before */
  async stats() {
    const link = this.#link;
    const [numbers, network] = link ? await Promise.all([link.numbers(), link.statistics()]) : [null, null];
    const { roundTrip = 0, relayed = false } = network ?? {};
    const { quality = "full", model = this.#model } = numbers ?? {};
    const common = { where: this.where, result: this.result, roundTrip, relayed };
    const dropped = (numbers?.frames_dropped ?? 0) + (this.#studio?.dropped ?? 0);
    if (this.#studio) return { ...common, ...this.#studio.statistics(), dropped, quality, model };
    const { framesPerSecond = 0, width = 0, height = 0, buffered = 0 } = network ?? {};
    const latency = (numbers?.latency_seconds ?? 0) + roundTrip + buffered;
    return { ...common, framesPerSecond, width, height, latency, dropped, quality, model };
  }

  /**
   * End it here and on the box. Idempotent.
   *
   * @param {string} [why]
   * @param {PortraitError | null} [error] the session's own to give
   */
  close(why = "closed here", error = null) {
    if (this.state === "closed") return;
    this.error = error;
    this.#ended.abort();
    this.#link?.close();
    this.#studio?.close();
    this.#change("closed", why);
    this.#tell("closed", why);
  }

  /** One connection to the box, in the place of none. */
  async #connect() {
    this.#studio?.restart();
    const link = await this.#open();
    if (this.#ended.signal.aborted) return link.close();
    this.#link = link;
  }

  async #open() {
    const studio = this.#studio;
    const look = { ...this.#look };
    // A picture that is no name follows once there is a session, and mode image is refused without one.
    if (!isName(look.background)) Object.assign(look, { background: "", ...(look.mode === "image" && { mode: "blur" }) });
    const { background, ...others } = look;
    /** @type {Record<string, string>} */
    const query = this.#options.model ? { model: this.#options.model } : {};
    if (!studio) Object.assign(query, others, background && { background });
    const track = studio ? studio.sent.track : this.#camera;
    const link = await Link.open(this.#box, track, this.result, query, (opened) => this.#listen(opened));
    link.look = look;
    await this.#tellLook(link).catch((error) => {
      link.close();
      throw error;
    });
    return link;
  }

  /** Let the box make it look as it shall now, which may change again meanwhile. */
  async #tellLook(/** @type {Link} */ link) {
    while (!this.#studio && link.look !== this.#look) await link.wear(this.#look);
  }

  #listen(/** @type {Link} */ link) {
    const { signal } = this.#ended;
    // A link that is to take over is heard once it has.
    const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ take) =>
      link.addEventListener(type, (event) => {
        if (link === (this.#link ?? link)) take(/** @type {CustomEvent} */ (event).detail);
      }, { signal });
    on("lost", (why) => link === this.#link && this.#reconnect(why));
    on("goaway", () => this.#move());
    on("track", (track) => this.#show(track));
    const studio = this.#studio;
    if (studio === null) return;
    on("sent", (rtp) => studio.encoded(rtp));
    on("message", (message) => {
      unpackMask(message).then(({ mask, rtp }) => studio.take(mask, rtp), (error) => reportError(error));
    });
  }

  #show(/** @type {MediaStreamTrack} */ track) {
    if (this.#studio) this.#studio.takeMasks(track);
    else this.#put(track);
  }

  /** The box's video into the output, in the place of the one before. */
  #put(/** @type {MediaStreamTrack} */ track) {
    for (const old of this.output.getTracks()) this.output.removeTrack(old);
    this.output.addTrack(track);
  }

  /** Connect anew until it is done, each time after a longer wait. */
  async #reconnect(/** @type {string} */ why) {
    if (this.state === "closed" || this.state === "reconnecting") return;
    if (this.#options.reconnect === false) return this.close(why);
    this.#change("reconnecting", why);
    for (let wait = FIRST_WAIT; !this.#ended.signal.aborted; wait = Math.min(2 * wait, LONGEST_WAIT)) {
      this.#link?.close();
      this.#link = null;
      try {
        await this.#connect();
        return this.#change("live", "");
      } catch (error) {
        const refusal = error instanceof PortraitError ? error : null;
        if (refusal && !refusal.passing) return this.close(refusal.message, refusal);
        // Not all at the same moment, after a box that has started anew.
        const seconds = Math.max(wait / 1000, refusal?.retryAfter ?? 0) * (1 + Math.random() / 4);
        this.#tell("retry", { error, seconds });
        await pause(seconds * 1000, this.#ended.signal);
      }
    }
  }

  /** The box is about to stop: another session beside this one, which takes over as soon as its results come. */
  async #move() {
    const old = this.#link;
    for (let wait = FIRST_WAIT; old !== null && old === this.#link && this.#options.reconnect !== false; wait *= 2) {
      let fresh = null;
      try {
        fresh = await this.#open();
        await fresh.flowing;
        await this.#tellLook(fresh);
        if (old !== this.#link || this.#ended.signal.aborted) return fresh.close();
        this.#link = fresh;
        this.#studio?.restart();
        if (fresh.track) this.#show(fresh.track);
        return old.close();
      } catch {
        fresh?.close(); // nobody has room yet: at the end of this session it is looked for as after any other
        await pause(wait, this.#ended.signal);
      }
    }
  }

  /** The network has changed: an ICE restart, or where the box refuses that a new connection, at once. */
  async #restart() {
    const link = this.#link;
    if (link === null || this.state !== "live") return;
    try {
      await link.restart();
    } catch {
      if (link === this.#link) this.#reconnect("the network has changed");
    }
  }

  /** @param {Partial<Look>} changes any of the options that say how the result looks */
  wear(changes) {
    // One after the other, so that the last one holds, however long a picture is on its way.
    const worn = this.#worn.then(() => this.#wear(changes));
    this.#worn = worn.catch(() => {});
    return worn;
  }

  async #wear(/** @type {Partial<Look>} */ changes) {
    const { mode } = changes;
    if (mode && !MODES.includes(mode)) throw new TypeError(`mode ${mode} came; expected one of ${MODES.join(", ")}`);
    const [before, link] = [this.#look, this.#link];
    this.#look = { ...before, ...changes };
    try {
      if (this.#studio) await dress(this.#studio.compositor, this.#look, this.#box);
      else if (link) await this.#tellLook(link);
    } catch (error) {
      if (!this.#studio && link !== this.#link) return; // lost meanwhile; the next one is opened with this look
      this.#look = before;
      throw error;
    }
  }

  #change(/** @type {State} */ state, /** @type {string} */ reason) {
    if (this.state === "closed") return;
    this.state = state;
    this.#tell("state", { state, reason });
  }

  #tell(/** @type {string} */ type, /** @type {unknown} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
