/**
 * Composes in the page: holds the camera's frames until their masks have come, and shows nothing without one.
 *
 * The box is sent a small copy of every frame, one at a time: the next is drawn when the encoder has reported the RTP
 * timestamp of the previous one, so that each timestamp belongs to a known frame, and a mask finds its frame.
 */

import { Compositor, SLOTS } from "./compositor.js";
import { FrameWriter, readFrames } from "./frames.js";
import { MaskReader } from "./masks.js";
import { PresenceTracker } from "./presence.js";

/** Pixels of the shorter side of the copies sent to the box; its model uses less. */
const SENT = 256;

/** Milliseconds after which the next frame is sent though the encoder has not reported the one before. */
const LATE = 150;

/** The same while no frame's RTP timestamp is known: its report must not be taken for another frame's. */
const ALONE = 500;

/** Milliseconds without a mask after which only the background is shown. */
const STALE = 1000;

/** Milliseconds after which a mask counts as lost: longer than any network delays it. */
const LOST = 3000;

/** RTP ticks (1/90000 s) by which a frame's time may be off. */
const TOLERANCE = 25 * 90;

/** Reports in a row that fit no frame, after which the reference is dropped. */
const MISFITS = 3;

/** Whether the page learns RTP timestamps; where it does not, a mask is shown with the newest frame. */
const TOLD = "RTCRtpScriptTransform" in globalThis;

/** Milliseconds between two reports of where the person is; that somebody has come or left is reported at once. */
const PRESENCE = 500;

/** @typedef {{slot: number, since: number, rtp?: number}} Held */

export class Studio {
  compositor = new Compositor();
  /** The small copies. */
  sent;
  /** The composed pictures. */
  composed;
  /** Frames whose mask did not arrive in time. */
  dropped = 0;
  /** @type {(presence: import("./types.js").Presence) => void} told who is in the picture, where masks are made here */
  tellPresence = () => {};
  #tracker = new PresenceTracker();
  #told = { present: false, at: -PRESENCE };
  #small = document.createElement("canvas");
  #context = /** @type {CanvasRenderingContext2D} */ (this.#small.getContext("2d"));
  #stopReading;
  #stopMasks = () => {};
  #watch;
  /** @type {Held[]} frames that the encoder has not reported, the oldest first */
  #encoding = [];
  /** @type {Held[]} frames whose masks are awaited, the oldest first */
  #held = [];
  /** @type {Held | null} a frame whose RTP timestamp is known */
  #reference = null;
  #misfits = 0;
  #newest = -1;
  #masked = 0;
  #shown = { count: 0, since: performance.now(), latency: 0 };

  /**
   * @param {MediaStreamTrack} camera
   * @param {import("./local.js").LocalSegmenter} [segmenter] works in the page; without one `take` is given masks
   */
  constructor(camera, segmenter) {
    this.segmenter = segmenter;
    Object.assign(this.#small, { width: SENT, height: SENT });
    this.sent = new FrameWriter(this.#small);
    this.composed = new FrameWriter(this.compositor.canvas);
    this.#stopReading = readFrames(camera, (picture, width, height) =>
      segmenter ? this.#segment(picture, width, height) : this.#send(picture, width, height),
    );
    this.#watch = setInterval(() => this.#failClosed(), STALE / 4);
  }

  /** A frame has left the encoder with this RTP timestamp. */
  encoded(/** @type {number} */ rtp) {
    const reference = this.#reference;
    if (reference === null) {
      // Most likely the one frame that was sent; believed when the next report fits it.
      const frame = this.#encoding.shift();
      if (frame) this.#reference = { ...frame, rtp };
      this.#misfits = MISFITS - 1;
      return;
    }
    const place = this.#encoding.findIndex((frame) => fits(reference, frame, rtp));
    if (place >= 0) {
      this.#reference = { ...this.#encoding[place], rtp };
      this.#held.push(this.#reference);
      this.#encoding.splice(0, place + 1); // the encoder has dropped those before it
      this.#misfits = 0;
    } else if (++this.#misfits === MISFITS) {
      this.#reference = null;
    }
  }

  /**
   * A mask; it is shown with its own frame if that is still held.
   *
   * @param {import("./masks.js").Mask} mask
   * @param {number | undefined} rtp of its frame
   */
  take(mask, rtp) {
    const frame = TOLD && rtp !== undefined ? this.#find(rtp) : { slot: this.#newest, since: performance.now() };
    if (frame && frame.slot >= 0) this.#show(frame, mask);
  }

  /** Masks from a track of them, instead of the one before. */
  takeMasks(/** @type {MediaStreamTrack} */ track) {
    const reader = new MaskReader();
    this.#stopMasks();
    this.#stopMasks = readFrames(track, (picture, width, height, rtp) => {
      this.take(reader.read(picture, width, height), rtp);
    });
  }

  /** Forget RTP timestamps: a new connection has others. */
  restart() {
    this.#reference = null;
    this.#encoding = [];
    this.#held = [];
  }

  /** Frames per second, and seconds from a frame to its picture, since the last call. */
  statistics() {
    const now = performance.now();
    const { count, since, latency } = this.#shown;
    this.#shown = { count: 0, since: now, latency: 0 };
    const { width, height } = this.compositor.canvas;
    return { framesPerSecond: (1000 * count) / (now - since), latency: count ? latency / count / 1000 : 0, width, height };
  }

  close() {
    this.#stopReading();
    this.#stopMasks();
    clearInterval(this.#watch);
    this.sent.close();
    this.composed.close();
    this.segmenter?.close();
    this.compositor.close();
  }

  /** @type {(picture: import("./frames.js").Picture, width: number, height: number) => void} */
  #send(picture, width, height) {
    const now = performance.now();
    while (this.#held.length && now - this.#held[0].since > LOST) this.#forgetOldest();
    // Frames whose masks are under way are kept: over a long round trip fewer are sent, instead of all too late.
    const last = this.#encoding.at(-1);
    if ((last && now - last.since < (this.#reference ? LATE : ALONE)) || this.#held.length >= SLOTS - 2) return;
    while (this.#encoding.length && (!this.#reference || this.#encoding.length + this.#held.length >= SLOTS - 2)) {
      this.#encoding.shift();
    }
    const scale = Math.min(1, SENT / Math.min(width, height));
    const size = { width: 2 * Math.round((width * scale) / 2), height: 2 * Math.round((height * scale) / 2) };
    if (this.#small.width !== size.width || this.#small.height !== size.height) Object.assign(this.#small, size);
    this.#context.drawImage(picture, 0, 0, size.width, size.height);
    this.#newest = this.compositor.hold(picture, width, height);
    if (TOLD) this.#encoding.push({ slot: this.#newest, since: performance.now() });
    this.sent.write();
  }

  /** @type {(picture: import("./frames.js").Picture, width: number, height: number) => void} */
  #segment(picture, width, height) {
    const segmenter = /** @type {import("./local.js").LocalSegmenter} */ (this.segmenter);
    if (segmenter.busy) {
      this.dropped++;
      return;
    }
    const frame = { slot: (this.#newest = this.compositor.hold(picture, width, height)), since: performance.now() };
    segmenter.segment(picture, width, height).then(
      (mask) => {
        this.#report(mask);
        this.#show(frame, mask);
      },
      (error) => reportError(error), // no mask: only the background is shown
    );
  }

  #report(/** @type {import("./masks.js").Mask} */ mask) {
    const [presence, now] = [this.#tracker.follow(mask), performance.now()];
    if (presence.present === this.#told.present && now - this.#told.at < PRESENCE) return;
    this.#told = { present: presence.present, at: now };
    this.tellPresence(presence);
  }

  /** The held frame of this RTP timestamp. Those before it will get no mask any more. */
  #find(/** @type {number} */ rtp) {
    const place = this.#held.findIndex((held) => held.rtp === rtp);
    if (place < 0) return null;
    for (let i = 0; i < place; i++) this.#forgetOldest();
    return this.#held.shift();
  }

  #forgetOldest() {
    this.#held.shift();
    this.dropped++;
  }

  #show(/** @type {Held} */ frame, /** @type {import("./masks.js").Mask} */ mask) {
    this.#masked = performance.now();
    this.#shown.count++;
    this.#shown.latency += this.#masked - frame.since;
    this.compositor.draw(frame.slot, mask);
    this.composed.write();
  }

  #failClosed() {
    if (this.#newest < 0 || performance.now() - this.#masked < STALE) return;
    this.compositor.draw(this.#newest);
    this.composed.write();
  }
}

/** Whether a frame of this RTP timestamp was drawn when the reference says it was. */
function fits(/** @type {Held} */ reference, /** @type {Held} */ frame, /** @type {number} */ rtp) {
  const expected = (reference.rtp ?? 0) + 90 * (frame.since - reference.since);
  return Math.abs(Math.round(rtp - expected) | 0) < TOLERANCE; // as 32 bits: they begin anew
}
