/** A session: a camera, where its masks are made, and the result. It outlives lost connections. */

import { HIDING, MODES } from "./compositor.js";
import { watchEnd } from "./frames.js";
import { Link } from "./link.js";
import { dress, isName, lookOf } from "./look.js";
import { unpackMask } from "./masks.js";
import { pause, watchNetwork } from "./network.js";
import { decide } from "./place.js";
import { Box, PortraitError } from "./signalling.js";
import { Studio } from "./studio.js";

/** @import {Look, Mode, Options, Presence, Result, State, Stats, Where} from "./types.js" */

/** Milliseconds between attempts: the first, and the longest. */
const [FIRST_WAIT, LONGEST_WAIT] = [300, 10_000];

const CAMERA_ENDED = "the camera's track ended";

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
 * is known where masks are made; "retry" (detail: {error, seconds}) when an attempt to reconnect has failed, with the time
 * to the next; "refused" (detail: reason), every few seconds while the box refuses the camera's frames, and with null when it
 * takes them again; "presence" (detail: Presence) when a person has come or left, and now and then where they are;
 * "track" (detail: the track) when `output` has another track of the box; "closed" (detail: reason), once.
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
  /** Why they are made there, for people; "" if the options say where. */
  reason = "";
  /** @type {PortraitError | null} the refusal of the box that ended the session */
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
  #refusal = "";
  /** @type {Presence | null} */
  #presence = null;
  #ended = new AbortController();

  /**
   * @param {MediaStream} stream
   * @param {Options} options
   */
  constructor(stream, options) {
    super();
    [this.#camera] = stream.getVideoTracks();
    if (!this.#camera) throw new TypeError("got a stream without video, expected one with a video track");
    if (this.#camera.readyState === "ended") throw new TypeError("got a video track that has ended, expected a live one");
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
    this.#checkMode(this.#look.mode);
    if (this.where === "browser" || this.result !== "composite") {
      this.#studio = new Studio(this.#camera, place.segmenter);
      if (this.where === "browser") this.#studio.tellPresence = (presence) => this.#see(presence);
      this.output.addTrack(this.#studio.composed.track);
      await dress(this.#studio.compositor, this.#look, this.#box);
    }
    watchEnd(this.#camera, this.#ended.signal, () => this.close(CAMERA_ENDED));
    if (this.where === "box") {
      await this.#connect();
      // The connection would find another way only after many seconds, if at all; the server restarts no ICE.
      watchNetwork(() => this.state === "live" && this.#reconnect("the network has changed"), this.#ended.signal);
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

  /** @returns {Promise<Stats>} rates and latencies since the last call */
  async stats() {
    const link = this.#link;
    const [numbers, network] = link ? await Promise.all([link.numbers(), link.statistics()]) : [null, null];
    const { roundTrip = 0, relayed = false } = network ?? {};
    const { quality = "full", model = this.#model, frames_carried: carried = 0 } = numbers ?? {};
    const refused = numbers?.frames_refused ?? 0;
    const presence = this.#presence;
    const common = { where: this.where, result: this.result, roundTrip, relayed, refused, refusal: this.#refusal, presence };
    const dropped = (numbers?.frames_dropped ?? 0) + (this.#studio?.dropped ?? 0);
    // Rates first: a console shows the first few of an object.
    if (this.#studio) return { ...this.#studio.statistics(), dropped, carried, quality, model, ...common };
    const { framesPerSecond = 0, width = 0, height = 0, buffered = 0 } = network ?? {};
    const latency = (numbers?.latency_seconds ?? 0) + roundTrip + buffered;
    return { framesPerSecond, width, height, latency, dropped, carried, quality, model, ...common };
  }

  /**
   * End the session here and on the box. Idempotent.
   *
   * @param {string} [why]
   * @param {PortraitError | null} [error] internal: the refusal that ended it
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

  /** Connect to the box, where there is no connection. */
  async #connect() {
    this.#studio?.restart();
    [this.#refusal, this.#presence] = ["", null];
    const link = await this.#open();
    if (this.#ended.signal.aborted) return link.close();
    this.#link = link;
  }

  async #open() {
    const studio = this.#studio;
    const look = { ...this.#look };
    // A background that has no name on the box is sent once there is a session; mode image would be refused until then.
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

  /** Tell the box the present look, again if it changes meanwhile. */
  async #tellLook(/** @type {Link} */ link) {
    while (!this.#studio && link.look !== this.#look) await link.wear(this.#look);
  }

  #listen(/** @type {Link} */ link) {
    const { signal } = this.#ended;
    // A link that is to take over is listened to once it has.
    const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ take) =>
      link.addEventListener(type, (event) => {
        if (link === (this.#link ?? link)) take(/** @type {CustomEvent} */ (event).detail);
      }, { signal });
    on("lost", (why) => link === this.#link && this.#reconnect(why));
    on("goaway", () => this.#move());
    on("refused", (why) => {
      this.#refusal = why ?? this.#refusal;
      this.#tell("refused", why);
    });
    on("presence", (presence) => this.#see(presence));
    on("track", (track) => this.#show(track));
    const studio = this.#studio;
    if (studio === null) return;
    on("sent", (rtp) => studio.encoded(rtp));
    on("message", (message) => {
      unpackMask(message).then(({ mask, rtp }) => studio.take(mask, rtp), (error) => reportError(error));
    });
  }

  #see(/** @type {Presence} */ presence) {
    this.#presence = presence;
    this.#tell("presence", presence);
  }

  #show(/** @type {MediaStreamTrack} */ track) {
    if (this.#studio) this.#studio.takeMasks(track);
    else this.#put(track);
  }

  /** The box's video into the output, in the place of the one before. */
  #put(/** @type {MediaStreamTrack} */ track) {
    for (const old of this.output.getTracks()) this.output.removeTrack(old);
    this.output.addTrack(track);
    this.#tell("track", track);
  }

  /** Connect again until it succeeds, each time after a longer wait. */
  async #reconnect(/** @type {string} */ why) {
    if (this.state === "closed" || this.state === "reconnecting") return;
    if (this.#camera.readyState === "ended") return this.close(CAMERA_ENDED);
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
        // At random, so that not all clients of a box that has restarted connect in the same moment.
        const seconds = Math.max(wait / 1000, refusal?.retryAfter ?? 0) * (1 + Math.random() / 4);
        this.#tell("retry", { error, seconds });
        await pause(seconds * 1000, this.#ended.signal);
      }
    }
  }

  /** The box is about to stop: open another session beside this one, which takes over when its results arrive. */
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
        fresh?.close(); // no box has capacity yet: when this session ends it reconnects as after any loss
        await pause(wait, this.#ended.signal);
      }
    }
  }

  /** @param {Partial<Look>} changes any of the options that say how the result looks */
  wear(changes) {
    // One after the other, so that the last one counts, however long a picture takes to load.
    const worn = this.#worn.then(() => this.#wear(changes));
    this.#worn = worn.catch(() => {});
    return worn;
  }

  async #wear(/** @type {Partial<Look>} */ changes) {
    if (changes.mode) this.#checkMode(changes.mode);
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

  #checkMode(/** @type {Mode} */ mode) {
    if (!MODES.includes(mode)) throw new TypeError(`got mode ${mode}, expected one of ${MODES.join(", ")}`);
    // A mask of the box's does not say whether nobody is there or segmentation has failed.
    if (this.where === "box" && this.result !== "composite" && HIDING.includes(mode)) {
      throw new TypeError(`got mode ${mode} where the page composes with masks of the box's, expected result composite, or where: "browser"`);
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
