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

/** @typedef {import("/web/portrait/types.js").Look} Look */
/** @typedef {import("/web/portrait/types.js").Mode} Mode */
/** @typedef {import("/web/portrait/types.js").Options} Options */
/** @typedef {import("/web/portrait/types.js").People} People */
/** @typedef {import("/web/portrait/types.js").Presence} Presence */
/** @typedef {import("/web/portrait/types.js").Result} Result */
/** @typedef {import("/web/portrait/types.js").State} State */
/** @typedef {import("/web/portrait/types.js").Stats} Stats */
/** @typedef {import("/web/portrait/types.js").Where} Where */
