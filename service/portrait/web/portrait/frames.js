/**
 * Frames of tracks: read as they come, written as they are made.
 *
 * Chromium reads and writes them as streams, also in a tab that is hidden; elsewhere a video and a canvas do it, and a
 * hidden tab stands still.
 */

/** @typedef {VideoFrame | HTMLVideoElement} Picture valid until the call that brings it returns */

// Not in TypeScript's library: no standard, but what Chromium has.
const { MediaStreamTrackProcessor, MediaStreamTrackGenerator } = /** @type {any} */ (globalThis);

/**
 * Whether `readFrames` tells the RTP timestamp of exactly the frame it gives. A video element does not: drawn while it is
 * busy, it gives the frame before or after the one it has announced.
 */
export const EXACT = Boolean(MediaStreamTrackProcessor);

/**
 * Call `take` for every frame of a video track, until the function that comes back is called.
 *
 * @param {MediaStreamTrack} track
 * @param {(picture: Picture, width: number, height: number, rtp: number | undefined) => void} take `rtp` is the RTP
 *   timestamp of a frame that came over the network
 * @returns {() => void}
 */
export function readFrames(track, take) {
  return EXACT ? readStream(track, take) : readVideo(track, take);
}

/** Milliseconds between two looks at a track: no event tells that the page itself has stopped it. */
const END_CHECK = 500;

/**
 * Call `ended` when a track has ended, also because the page has stopped it, unless `signal` is aborted before.
 *
 * @param {MediaStreamTrack} track
 * @param {AbortSignal} signal
 * @param {() => void} ended
 */
export function watchEnd(track, signal, ended) {
  const check = () => {
    if (!signal.aborted && track.readyState === "ended") ended();
  };
  const timer = setInterval(check, END_CHECK);
  signal.addEventListener("abort", () => clearInterval(timer));
  track.addEventListener("ended", check, { signal });
}

/** @type {typeof readFrames} */
function readStream(track, take) {
  const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
  let reading = true;
  const read = async () => {
    while (reading) {
      const { value: frame, done } = await reader.read();
      if (done) return;
      try {
        if (reading) take(frame, frame.displayWidth, frame.displayHeight, frame.metadata?.().rtpTimestamp);
      } finally {
        frame.close(); // a camera has few buffers and waits for them
      }
    }
    // Between two frames: cancelled while it waits for one, the reader would drop that one without closing it.
    await reader.cancel();
  };
  read().catch((error) => reportError(error));
  return () => {
    reading = false;
  };
}

/** @type {typeof readFrames} */
function readVideo(track, take) {
  const video = document.createElement("video");
  let reading = true;
  video.muted = video.playsInline = true;
  video.srcObject = new MediaStream([track]);
  video.play().catch(() => {}); // interrupted by the end of reading
  const next = () =>
    video.requestVideoFrameCallback((_, { width, height }) => {
      if (!reading) return;
      next();
      take(video, width, height, undefined);
    });
  next();
  return () => {
    reading = false;
    video.srcObject = null;
  };
}

/** A video track of what a canvas shows whenever `write` is called. */
export class FrameWriter {
  /** @type {WritableStreamDefaultWriter<VideoFrame> | null} */
  #writer = null;
  /** @type {Set<VideoFrame>} frames that are being written */
  #pending = new Set();
  /** @type {any} */
  #source = null;

  /** @param {HTMLCanvasElement} canvas which has its context already */
  constructor(canvas) {
    this.canvas = canvas;
    if (MediaStreamTrackGenerator) {
      const generator = new MediaStreamTrackGenerator({ kind: "video" });
      this.#writer = generator.writable.getWriter();
      /** @type {MediaStreamTrack} */
      this.track = generator;
    } else {
      const stream = canvas.captureStream(0);
      this.track = stream.getVideoTracks()[0];
      // The track's by the standard, the stream's in Firefox.
      this.#source = "requestFrame" in this.track ? this.track : stream;
    }
  }

  /** The canvas as it is now is a frame of the track. */
  write() {
    if (this.#writer === null) return this.#source.requestFrame();
    if (this.track.readyState === "ended") return;
    const frame = new VideoFrame(this.canvas, { timestamp: Math.round(performance.now() * 1000) });
    this.#pending.add(frame);
    this.#writer.write(frame).catch(() => {}).finally(() => this.#finish(frame));
  }

  close() {
    if (this.#writer === null) return this.track.stop();
    this.track.stop();
    this.#pending.forEach((frame) => this.#finish(frame)); // no promise tells of those that a stopped track leaves
  }

  #finish(/** @type {VideoFrame} */ frame) {
    this.#pending.delete(frame);
    frame.close();
  }
}
