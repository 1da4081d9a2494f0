/**
 * A TrackProcessor for livekit-client: the camera of a LiveKit room before another background.
 *
 *   import { createLocalVideoTrack } from "livekit-client";
 *   import { PortraitProcessor } from "/web/portrait/livekit.js";
 *   const camera = await createLocalVideoTrack();
 *   await camera.setProcessor(new PortraitProcessor({ mode: "blur" }));
 */

import { processTrack, sessionOf } from "./track.js";

/** @import {Options} from "./types.js" */

/** Made with the options of `connect`; used for one track at a time, as LiveKit does. */
export class PortraitProcessor {
  name = "portrait";
  /** @type {MediaStreamTrack | undefined} what LiveKit publishes in the camera's place */
  processedTrack = undefined;
  #options;

  /** @param {Options} [options] */
  constructor(options = {}) {
    this.#options = options;
  }

  /** The session, while there is one: to change how it looks, and for its numbers. */
  get session() {
    return this.processedTrack && sessionOf(this.processedTrack);
  }

  /**
   * Called by LiveKit with the camera's track.
   *
   * @param {{track: MediaStreamTrack}} given
   */
  async init({ track }) {
    this.processedTrack = await processTrack(track, this.#options);
  }

  /**
   * Called by LiveKit when the camera has another track.
   *
   * @param {{track: MediaStreamTrack}} given
   */
  async restart(given) {
    await this.destroy();
    await this.init(given);
  }

  /** Called by LiveKit at the end. */
  async destroy() {
    this.session?.close("LiveKit has ended it");
    this.processedTrack = undefined;
  }
}
