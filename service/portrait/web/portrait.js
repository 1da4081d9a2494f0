/**
 * The browser module of the service: camera up, the person before another background down.
 *
 *   import { connect } from "/portrait.js";
 *   const camera = await navigator.mediaDevices.getUserMedia({ video: true });
 *   const session = await connect(camera, { mode: "blur" });
 *   video.srcObject = session.output;
 *
 * docs/use/browser.md says everything else.
 */
export { connect, PortraitSession } from "/web/portrait/session.js";
export { PortraitError } from "/web/portrait/signalling.js";
