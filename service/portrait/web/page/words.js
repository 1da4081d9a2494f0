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

const LATER = "Try again in a moment; somebody else may have stopped by then.";
const OURS = "This should not happen. Load the page anew; if it stays so, tell whoever runs the box what stands below.";

/** @type {Record<string, [string, string]>} by the service's `reason`: the errors of portrait/errors.py, and HTTP's own */
export const REASONS = {
  BAD_INPUT: ["The box does not understand this page", OURS],
  BAD_PICTURE: ["The box cannot use this picture", "Choose another one: JPEG, PNG or WebP, of no more than the size stated below."],
  BAD_OPTION: ["The box does not know what was chosen", "It may have been updated meanwhile: load the page anew and choose again."],
  BAD_MESSAGE: ["The box does not understand this page", OURS],
  MESSAGE_TOO_LARGE: ["That is too large for the box", "Choose a smaller picture."],
  BAD_OFFER: ["The box does not understand this browser", "Update the browser, or use another one."],
  UNSUPPORTED_OFFER: ["This browser and the box have no video format in common", "Use a browser with VP8 or H.264: Chrome, Edge, Firefox, Safari."],
  NOT_CONFIGURED: ["The box does not understand this page", OURS],
  UNAUTHENTICATED: ["The box wants to know who you are", "Load the page anew and give your token as the password. If you did, it is no longer valid: ask whoever runs the box for another."],
  NO_SUCH_SESSION: ["The box has lost this session", "Start the camera again."],
  SESSION_ENDED: ["Somebody has ended this session on the box", "Start the camera again, if that was not meant for good."],
  IDLE: ["The box has seen no picture for a while", "Start the camera again. If its picture stood still, look at the camera and its cable."],
  REFUSED: ["The box takes no more work now", LATER],
  TOO_MANY_SESSIONS: ["The box is full", `It serves as many people as it is allowed to. ${LATER} Or let this browser do the work, under “Work”.`],
  OUT_OF_CPU: ["The box is full", `One more person would slow down the others. ${LATER} Or let this browser do the work, under “Work”.`],
  WORKER_LOST: ["A part of the box has failed", "It starts anew by itself. Try again in a moment."],
  NO_MEDIA_PORT: ["The box has no free port for your video", LATER],
  TOO_MANY_PIXELS: ["Too many pictures are being worked on", LATER],
  TOO_MANY_VIEWERS: ["Too many people watch already", LATER],
  NOT_PUBLISHED: ["Nobody sends this stream now", "Try again when its camera is on."],
  STREAM_TAKEN: ["Somebody else sends under this name", "Take another name, or try again when they have stopped."],
  TOO_MANY_REQUESTS: ["This device asks too often", "Wait some seconds, then try again."],
  DRAINING: ["The box is about to stop", "It takes nobody any more. Try again when it has been started anew."],
  SEGMENTATION_FAILED: ["The network gave no mask", "Nobody is shown rather than your room. Start again; if it stays so, tell whoever runs the box."],
  SEGMENTATION_HANGS: ["The box could not keep up and has ended the session", "Start again, with a smaller camera size if it happens again."],
  BAD_MODEL: ["The box's network cannot be used", "Tell whoever runs the box: its model file is not what the service expects."],
  BAD_SETTINGS: ["The box is set up wrongly", "Tell whoever runs the box."],
  PORTRAIT_ERROR: ["Something went wrong on the box", OURS],
  INTERNAL: ["Something went wrong on the box", OURS],
  NOT_FOUND: ["The box does not have this", "It may have been updated meanwhile: load the page anew."],
  METHOD_NOT_ALLOWED: ["The box does not understand this page", OURS],
  REQUEST_ENTITY_TOO_LARGE: ["That is too large for the box", "Choose a smaller picture."],
  UNSUPPORTED_MEDIA_TYPE: ["The box does not understand this page", OURS],
};

/** @type {Record<string, [string, string]>} by the name of what getUserMedia throws */
const CAMERA = {
  NotAllowedError: ["The camera was refused", "Allow it: press the camera or lock symbol in the address bar, choose “Allow”, then start again. If it is allowed there, allow it in the system's privacy settings as well."],
  NotFoundError: ["No camera was found", "Connect one, or switch on the one you have, then start again."],
  NotReadableError: ["The camera cannot be opened", "Another program may be using it: close that one, then start again."],
  AbortError: ["The camera cannot be opened", "Unplug it and plug it in again, then start again."],
  OverconstrainedError: ["The camera cannot do this", "Choose another size, or another camera."],
  SecurityError: ["This page may not use the camera", "Browser or organisation forbid it on this page. Ask whoever manages the device."],
};

/** A step of quality on the box: its name, and what it means. @type {Record<string, [string, string]>} */
export const QUALITY = {
  full: ["Full", "each frame its own mask"],
  still: ["Thrifty", "masks used again in still scenes"],
  alternate: ["Every second mask", "the frames between share one"],
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
    return { title: "The box does not answer", advice: "Is it running, and is this device on its network? Then try again.", said };
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
    return ["The box cannot be reached", "Something before it answers instead, a proxy for one. Try again when the box runs."];
  }
  return REASONS.INTERNAL;
}
