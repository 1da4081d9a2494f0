/** A session: a camera, where its masks are made, and what comes of it; it lives on through lost connections. */

import { Compositor, MODES } from "./compositor.js";
import { readFrames } from "./frames.js";
import { Link } from "./link.js";
import { LocalSegmenter } from "./local.js";
import { dress, isName, lookOf, toText } from "./look.js";
import { MaskReader, unpackMask } from "./masks.js";
import { Box, PortraitError } from "./signalling.js";
import { Studio } from "./studio.js";

/** @typedef {import("./types.js").Options} Options */
/** @typedef {import("./types.js").Stats} Stats */
/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Result} Result */
/** @typedef {import("./types.js").Where} Where */
/** @typedef {import("./types.js").Mode} Mode */

/** Milliseconds of an inference up to which "auto" keeps the work in the page: a third of a frame's time at 30 fps. */
const QUICK = 11;

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
 * is known where masks are made; "closed" (detail: why), once.
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
  #box;
  #camera;
  #options;
  /** @type {Link | null} */
  #link = null;
  /** @type {Studio | null} */
  #studio = null;
  /** @type {import("./types.js").Look} */
  #look;
  #stopMasks = () => {};
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
    const segmenter = await this.#decide();
    this.#tell("where", { where: this.where, result: this.result, reason: this.reason });
    if (this.where === "browser" || this.result !== "composite") {
      this.#studio = new Studio(this.#camera, segmenter ?? undefined);
      this.output.addTrack(this.#studio.composed.track);
      await dress(this.#studio.compositor, this.#look, this.#box);
    }
    if (this.where === "box") {
      await this.#connect();
      this.#watchNetwork();
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
    const common = { where: this.where, result: this.result, roundTrip, relayed };
    const dropped = (numbers?.frames_dropped ?? 0) + (this.#studio?.dropped ?? 0);
    if (this.#studio) return { ...common, ...this.#studio.statistics(), dropped };
    const { framesPerSecond = 0, width = 0, height = 0, buffered = 0 } = network ?? {};
    const latency = (numbers?.latency_seconds ?? 0) + roundTrip + buffered;
    return { ...common, framesPerSecond, width, height, latency, dropped };
  }

  /** End it here and on the box. Idempotent. */
  close(why = "closed here") {
    if (this.state === "closed") return;
    this.#ended.abort();
    this.#stopMasks();
    this.#link?.close();
    this.#studio?.close();
    this.#change("closed", why);
    this.#tell("closed", why);
  }

  /** Settle where masks are made; the segmenter when that is here. */
  async #decide() {
    const { where = "box", model } = this.#options;
    const wanted = where !== "box" || this.result !== "composite";
    if (wanted && !Compositor.available) {
      if (where === "browser") throw new Error("this browser has no WebGL 2: the box can do it");
      this.result = "composite";
      this.reason = "this browser has no WebGL 2";
    } else if (where !== "box") {
      try {
        const segmenter = await LocalSegmenter.open(this.#box, model);
        const took = await segmenter.measure();
        this.reason = `an inference takes ${took.toFixed(1)} ms in this browser`;
        if (where === "browser" || took <= QUICK) {
          this.where = "browser";
          return segmenter;
        }
        segmenter.close();
      } catch (error) {
        if (where === "browser") throw error;
        this.reason = `the network does not run in this browser: ${/** @type {Error} */ (error).message}`;
      }
    }
    return null;
  }

  /** One connection to the box. */
  async #connect() {
    const studio = this.#studio;
    studio?.restart();
    const { mode, color, background, threshold, feather, framing } = this.#look;
    /** @type {Record<string, string>} */
    const query = this.#options.model ? { model: this.#options.model } : {};
    if (!studio) Object.assign(query, { mode, color, threshold, feather, framing });
    if (!studio && isName(background)) query.background = background;
    // Mode image is refused without a background: a picture that is no name follows once there is a session.
    const later = !studio && background && !isName(background);
    if (later && mode === "image") query.mode = "blur";
    const track = studio ? studio.sent.track : this.#camera;
    const link = await Link.open(this.#box, track, this.result, query, (opened) => this.#listen(opened));
    if (this.#ended.signal.aborted) return link.close();
    this.#link = link;
    if (later) await link.change({ mode, background: await toText(background) });
  }

  #listen(/** @type {Link} */ link) {
    const { signal } = this.#ended;
    const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ take) =>
      link.addEventListener(type, (event) => take(/** @type {CustomEvent} */ (event).detail), { signal });
    on("lost", (why) => link === this.#link && this.#reconnect(why));
    const studio = this.#studio;
    if (studio === null) return on("track", (track) => this.#put(track));
    on("sent", (rtp) => studio.encoded(rtp));
    on("track", (track) => this.#readMasks(track, studio));
    on("message", (message) => {
      unpackMask(message).then(({ mask, rtp }) => studio.take(mask, rtp), (error) => reportError(error));
    });
  }

  /** @param {MediaStreamTrack} track @param {Studio} studio */
  #readMasks(track, studio) {
    const reader = new MaskReader();
    this.#stopMasks();
    this.#stopMasks = readFrames(track, (picture, width, height, rtp) => {
      studio.take(reader.read(picture, width, height), rtp);
    });
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
        if (error instanceof PortraitError && !error.passing) return this.close(error.message);
        const longer = error instanceof PortraitError ? 1000 * (error.retryAfter ?? 0) : 0;
        // Not all at the same moment, after a box that has started anew.
        await this.#sleep(Math.max(wait, longer) * (1 + Math.random() / 4));
      }
    }
  }

  /** When the network has changed: an ICE restart, or where the box refuses that a new connection, at once. */
  #watchNetwork() {
    const { signal } = this.#ended;
    const changed = async () => {
      const link = this.#link;
      if (link === null || this.state !== "live") return;
      try {
        await link.restart();
      } catch {
        if (link === this.#link) this.#reconnect("the network has changed");
      }
    };
    addEventListener("online", changed, { signal });
    /** @type {any} */ (navigator).connection?.addEventListener("change", changed, { signal });
    this.#camera.addEventListener("ended", () => this.close("the camera's track ended"), { signal });
  }

  /** @param {Partial<import("./types.js").Look>} changes any of the options that say how the result looks */
  async wear(changes) {
    const { mode } = changes;
    if (mode && !MODES.includes(mode)) throw new TypeError(`mode ${mode} came; expected one of ${MODES.join(", ")}`);
    const before = this.#look;
    this.#look = { ...before, ...changes };
    try {
      if (this.#studio) await dress(this.#studio.compositor, this.#look, this.#box);
      else {
        const { background, ...others } = changes;
        await this.#link?.change(background ? { ...others, background: await toText(background) } : others);
      }
    } catch (error) {
      this.#look = before;
      throw error;
    }
  }

  #sleep(/** @type {number} */ milliseconds) {
    const { signal } = this.#ended;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      signal.addEventListener("abort", () => (clearTimeout(timer), resolve(undefined)), { once: true });
    });
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
