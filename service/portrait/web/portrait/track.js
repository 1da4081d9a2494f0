/**
 * A camera's track in, one before another background out: for software that takes tracks.
 *
 *   import { processTrack } from "/web/portrait/track.js";
 *   const track = await processTrack(camera, { mode: "blur" });
 *   await sender.replaceTrack(track); // track.stop() ends it
 */

import { FrameWriter, readFrames, watchEnd } from "./frames.js";
import { connect } from "./session.js";

/** @import {Options} from "./types.js" */
/** @import {PortraitSession} from "./session.js" */

/** @type {WeakMap<MediaStreamTrack, PortraitSession>} */
const sessions = new WeakMap();

/**
 * A video track that shows what a camera's track shows, before another background; the same through every reconnection.
 *
 * It ends with the camera's track and with its session; stopping it ends the session, and leaves the camera on.
 *
 * @param {MediaStreamTrack} camera
 * @param {Options} [options] those of `connect`
 * @returns {Promise<MediaStreamTrack>}
 * @throws {import("./signalling.js").PortraitError} the box refuses
 * @throws {TypeError} the box cannot be reached
 */
export async function processTrack(camera, options = {}) {
  const session = await connect(new MediaStream([camera]), options);
  const track = session.canvas ? session.output.getVideoTracks()[0] : relay(session);
  sessions.set(track, session);
  const ended = new AbortController();
  watchEnd(track, ended.signal, () => session.close("its track was stopped"));
  const end = () => {
    ended.abort();
    track.stop();
    track.dispatchEvent(new Event("ended")); // a track that its page stops does not tell
  };
  if (session.state === "closed") end();
  else session.addEventListener("closed", end, { once: true });
  return track;
}

/**
 * The session of a track that `processTrack` has made: to change how it looks, and for its numbers.
 *
 * @param {MediaStreamTrack} track
 * @returns {PortraitSession | undefined}
 */
export function sessionOf(track) {
  return sessions.get(track);
}

/** One track of the video that the box sends, which is another track after each reconnection. */
function relay(/** @type {PortraitSession} */ session) {
  const canvas = document.createElement("canvas");
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const writer = new FrameWriter(canvas);
  let stop = () => {};
  const follow = () => {
    stop();
    const [video] = session.output.getVideoTracks();
    if (!video) return;
    stop = readFrames(video, (picture, width, height) => {
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      context.drawImage(picture, 0, 0, width, height);
      writer.write();
    });
  };
  session.addEventListener("track", follow);
  session.addEventListener("closed", () => {
    stop();
    writer.close();
  }, { once: true });
  follow();
  return writer.track;
}
