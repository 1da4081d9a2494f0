/** The types of a page's options and of what it is told. */

/** @typedef {"composite" | "mask" | "data"} Result */
/** @typedef {"all" | "largest" | "nearest-centre"} People */
/** @typedef {"box" | "browser"} Where */
/** @typedef {"connecting" | "live" | "reconnecting" | "closed"} State */
/**
 * @typedef {"blur" | "color" | "image" | "cutout" | "mask" | "alpha" | "silhouette" | "pixelate" | "blur-person"} Mode
 *   cutout in the page only; the last three hide the person, where the box composes or the page makes the masks as well
 */

/**
 * @typedef {object} Options
 * @property {string} [server] origin of the box; the page's own by default
 * @property {string} [token] bearer token, where the box asks for one
 * @property {Result} [result] what the box sends: "composite", the composed video, by default; "mask", the mask as a
 *   video (in browsers other than Chromium's kind masks come as with "data"); "data", masks on a data channel. With the
 *   latter two the page composes, at the camera's full size.
 * @property {Where | "auto"} [where] where masks are made: "box" by default; "browser"; "auto" measures and decides
 * @property {Mode} [mode] "blur" by default
 * @property {string} [color] #rrggbb, the background of mode color and the person of mode silhouette
 * @property {string | Blob} [background] of mode image: a name the box knows, a data URL, or a file; a film as well where
 *   the page composes, elsewhere by its name only
 * @property {number} [threshold] the probability at which a pixel is half the person's; 0.5 by default
 * @property {number} [feather] how far to both sides of it edges are soft; 0.25 by default
 * @property {boolean} [framing] show the part of the picture where the person is; only where the box composes
 * @property {boolean} [decontaminate] remove the old room's colour from the person's edge
 * @property {number} [margin] how far the modes that hide the person reach beyond them, as a share of the picture's sides;
 *   0.03 by default
 * @property {People} [people] which persons count: all by default; only where the box composes
 * @property {string} [model] a model the box knows; its default one by default
 * @property {boolean} [reconnect] whether a lost connection is made anew; true by default
 */

/**
 * @typedef {object} Stats
 * @property {Where} where
 * @property {Result} result
 * @property {number} framesPerSecond
 * @property {number} width of the output
 * @property {number} height
 * @property {number} latency seconds from a camera's frame to its picture; with "composite" what service, network and
 *   jitter buffer take
 * @property {number} dropped frames that were dropped, on this connection
 * @property {number} [carried] frames that took the mask of an earlier one, since nothing that matters had moved, on this
 *   connection
 * @property {number} refused frames that the box refused, on this connection
 * @property {string} refusal why it refused the last one; "" if none
 * @property {string} quality the box's present quality level, docs/reference/behaviour.md; "full" in the browser
 * @property {string} model the network in use
 * @property {number} roundTrip seconds, 0 without a box
 * @property {boolean} relayed whether the connection goes through a TURN server
 * @property {Presence | null} presence whether a person is in the picture; null while it is not known
 */

/**
 * @typedef {object} Presence whether a person is in the picture; not for counting people, nor for safety
 * @property {boolean} present by the box's rule, or the same in the browser
 * @property {number} share of the picture's pixels that are a person's, 0 to 1
 * @property {{left: number, top: number, width: number, height: number} | null} box around them, in fractions of the
 *   picture's width and height
 */

/**
 * @typedef {{mode: Mode, color: string, background: string | Blob, threshold: number, feather: number, framing: boolean,
 *   decontaminate: boolean, margin: number, people: People}} Look how the result looks
 */

export {};
