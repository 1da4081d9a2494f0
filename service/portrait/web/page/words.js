/** Everything that can go wrong, in words: what happened, and what to do. */

import { PortraitError } from "/portrait.js";

/**
 * @typedef {object} Words
 * @property {string} title what happened
 * @property {string} advice what to do
 * @property {string} [said] in the service's or the browser's own words
 * @property {number} [wait] seconds after which it may be tried again
 */

/** Something a page can say by itself. */
export class Trouble extends Error {
  /** @param {string} title @param {string} advice @param {string} [said] */
  constructor(title, advice, said) {
    super(title);
    this.words = { title, advice, said };
  }
}

const LATER = "Try again in a moment: another session may have ended by then.";
const OURS = "This should not happen. Reload the page; if it happens again, send the message below to the box's operator.";

/** @type {Record<string, [string, string]>} by the service's `reason`: the errors of portrait/errors.py, and HTTP's own */
export const REASONS = {
  BAD_INPUT: ["The box does not understand this page", OURS],
  BAD_PICTURE: ["The box cannot use this picture", "Choose another one: a JPEG, PNG or WebP within the size stated below."],
  BAD_OPTION: ["The box does not know this choice", "It may have been updated meanwhile: reload the page and choose again."],
  BAD_MESSAGE: ["The box does not understand this page", OURS],
  MESSAGE_TOO_LARGE: ["That is too large for the box", "Choose a smaller picture."],
  BAD_OFFER: ["The box does not understand this browser", "Update the browser, or use another one."],
  UNSUPPORTED_OFFER: ["This browser and the box have no video format in common", "Use a browser with VP8 or H.264: Chrome, Edge, Firefox, Safari."],
  NOT_CONFIGURED: ["The box does not understand this page", OURS],
  UNAUTHENTICATED: ["The box asks you to sign in", "Reload the page and enter your token as the password. If you have, it is no longer valid: ask the box's operator for another."],
  NO_SUCH_SESSION: ["The box has lost this session", "Start the camera again."],
  SESSION_ENDED: ["This session was ended on the box", "Start the camera again to continue."],
  IDLE: ["The box has received no picture for a while", "Start the camera again. If its picture was frozen, check the camera and its cable."],
  REFUSED: ["The box accepts no more work at the moment", LATER],
  TOO_MANY_SESSIONS: ["The box is full", `It serves as many people as it may. ${LATER} Or let this browser do the work, under “Work”.`],
  OUT_OF_CPU: ["The box is full", `One more person would slow down the others. ${LATER} Or let this browser do the work, under “Work”.`],
  POD_LOST: ["A part of the service cannot be reached", "Try again in a moment."],
  WORKER_LOST: ["A part of the box has failed", "It restarts by itself. Try again in a moment."],
  NO_MEDIA_PORT: ["The box has no free port for your video", LATER],
  OUT_OF_RESOURCES: ["The box has nothing left for one more", LATER],
  TOO_MANY_PIXELS: ["Too many pictures are being worked on", LATER],
  TOO_MANY_BYTES: ["Too many pictures are being worked on", LATER],
  TOO_MANY_VIEWERS: ["Too many people are watching already", LATER],
  TOO_MANY_LISTENERS: ["Too many programs are listening to events already", LATER],
  NOT_PUBLISHED: ["This stream is not being sent at the moment", "Try again when its camera is on."],
  STREAM_TAKEN: ["This name is already in use", "Choose another name, or try again when the other sender has stopped."],
  TOO_MANY_REQUESTS: ["This device sends too many requests", "Wait a few seconds, then try again."],
  DRAINING: ["The box is about to stop", "It accepts no new sessions. Try again when it has restarted."],
  SEGMENTATION_FAILED: ["The network gave no mask", "You are hidden rather than your room shown. Start again; if it happens again, tell the box's operator."],
  SEGMENTATION_HANGS: ["The box could not keep up and has ended the session", "Start again, with a smaller camera size if it happens again."],
  BAD_MODEL: ["The box's network cannot be used", "Tell the box's operator: its model file is not what the service expects."],
  BAD_SETTINGS: ["The box is misconfigured", "Tell the box's operator."],
  PORTRAIT_ERROR: ["Something went wrong on the box", OURS],
  INTERNAL: ["Something went wrong on the box", OURS],
  NOT_FOUND: ["The box does not have this", "It may have been updated meanwhile: reload the page."],
  METHOD_NOT_ALLOWED: ["The box does not understand this page", OURS],
  REQUEST_ENTITY_TOO_LARGE: ["That is too large for the box", "Choose a smaller picture."],
  UNSUPPORTED_MEDIA_TYPE: ["The box does not understand this page", OURS],
};

/** @type {Record<string, [string, string]>} by the name of what getUserMedia throws */
const CAMERA = {
  NotAllowedError: ["The camera was refused", "Allow it: press the camera or lock symbol in the address bar, choose “Allow”, then start again. If it is allowed there, allow it in the system's privacy settings as well."],
  NotFoundError: ["No camera was found", "Connect one, or switch on the one you have, then start again."],
  NotReadableError: ["The camera cannot be opened", "Another program may be using it: close that program, then start again."],
  AbortError: ["The camera cannot be opened", "Unplug it and plug it in again, then start again."],
  OverconstrainedError: ["The camera cannot do this", "Choose another size, or another camera."],
  SecurityError: ["This page may not use the camera", "The browser or your organisation forbids it on this page. Ask the administrator of the device."],
};

/** A step of quality on the box: its name, and what it means. @type {Record<string, [string, string]>} */
export const QUALITY = {
  full: ["Full", "every frame has its own mask"],
  still: ["Economical", "masks are reused in still scenes"],
  alternate: ["Every second mask", "two frames share a mask"],
  smaller: ["Smaller network", "masks are a little coarser"],
  slower: ["Half the frames", "the box is very busy"],
};

/** Whatever was thrown, in words. @param {unknown} error @returns {Words} */
export function inWords(error) {
  if (error instanceof Trouble) return error.words;
  const said = error instanceof Error ? error.message : String(error);
  if (error instanceof PortraitError) {
    const [title, advice] = REASONS[error.reason] ?? ofStatus(error.status);
    return { title, advice, said, wait: error.retryAfter };
  }
  if (error instanceof TypeError && /fetch|network/i.test(said)) {
    return { title: "The box does not answer", advice: "Check that it is running and that this device is on its network, then try again.", said };
  }
  return { title: "This does not work in this browser", advice: "Choose another way under “Work”, or use another browser.", said };
}

/** What a camera's refusal means. @param {unknown} error */
export function cameraTrouble(error) {
  const { name, message } = /** @type {DOMException} */ (error);
  const [title, advice] = CAMERA[name] ?? ["The camera cannot be opened", "Try again, or try another browser."];
  return new Trouble(title, advice, message);
}

/** @param {number} status of an answer that is not the box's own @returns {[string, string]} */
function ofStatus(status) {
  if (status === 401 || status === 403) return REASONS.UNAUTHENTICATED;
  if (status === 413) return REASONS.REQUEST_ENTITY_TOO_LARGE;
  if (status === 502 || status === 503 || status === 504) {
    return ["The box cannot be reached", "A proxy in front of it answered instead. Try again when the box is running."];
  }
  return REASONS.INTERNAL;
}
