/** How the result looks: colours and pictures of every form a page may give, for the compositor and for the box. */

/** @typedef {import("./types.js").Look} Look */

/**
 * The look a page has asked for, the rest by default.
 *
 * @param {Partial<Look>} options
 * @returns {Look}
 */
export function lookOf(options) {
  const { mode = "blur", color = "#00b140", background = "" } = options;
  const { threshold = 0.5, feather = 0.25, framing = false, decontaminate = false, margin = 0.03, people = "all" } = options;
  return { mode, color, background, threshold, feather, framing, decontaminate, margin, people };
}

/**
 * Let a compositor show this look from now on.
 *
 * @param {import("./compositor.js").Compositor} compositor
 * @param {Look} look
 * @param {import("./signalling.js").Box} box which has the pictures with names
 * @throws {TypeError} a part of it is wrong or missing; nothing has changed then
 */
export async function dress(compositor, look, box) {
  const { mode, color, background, threshold, feather, framing, margin, people } = look;
  const digits = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(color);
  if (!digits) throw new TypeError(`got color ${color}, expected #rrggbb`);
  if (framing) throw new TypeError("got framing where the page composes, expected result composite, made by the box");
  if (people !== "all") throw new TypeError(`got people ${people} where the page composes, expected result composite, made by the box`);
  if (!(feather > 0 && feather <= Math.min(threshold, 1 - threshold))) {
    throw new TypeError(`got threshold ${threshold} and feather ${feather}, expected a feather no larger than the threshold's distance from 0 and 1`);
  }
  if (!(margin >= 0 && margin <= 0.2)) throw new TypeError(`got margin ${margin}, expected 0 to 0.2`);
  if (mode === "image" && !background) throw new TypeError("got mode image without a background, expected one");
  if (mode === "image" && compositor.source !== background) {
    compositor.background = await openPicture(background, box);
    compositor.source = background;
  }
  compositor.color = /** @type {[number, number, number]} */ (digits.slice(1).map((hex) => parseInt(hex, 16) / 255));
  compositor.edge = look;
  compositor.mode = mode;
}

/**
 * Whether a background is one the box knows by name.
 *
 * @param {string | Blob} background
 * @returns {background is string}
 */
export function isName(background) {
  return typeof background === "string" && background !== "" && !background.startsWith("data:");
}

/**
 * What the box must be told, so that one look becomes another.
 *
 * @param {Look | null} before
 * @param {Look} after
 * @returns {Promise<Record<string, string | number | boolean>>}
 */
export async function changesBetween(before, after) {
  const names = /** @type {(keyof Look)[]} */ (Object.keys(after)).filter((name) => after[name] !== before?.[name]);
  const changes = Object.fromEntries(names.map((name) => [name, after[name]]));
  if (changes.background) changes.background = await toText(/** @type {string | Blob} */ (changes.background));
  return /** @type {Record<string, string | number | boolean>} */ (changes);
}

/**
 * A background as the box takes it: a name, or a data URL.
 *
 * @param {string | Blob} background
 * @returns {Promise<string>}
 */
async function toText(background) {
  if (typeof background === "string") return background;
  const reader = new FileReader();
  reader.readAsDataURL(background);
  return new Promise((resolve, reject) => {
    reader.onload = () => resolve(/** @type {string} */ (reader.result));
    reader.onerror = () => reject(reader.error);
  });
}

/** @param {string | Blob} background @param {import("./signalling.js").Box} box */
async function openPicture(background, box) {
  let blob = background;
  if (typeof blob === "string") {
    const fetched = isName(blob) && (await box.fetch(`/v1/backgrounds/${encodeURIComponent(blob)}`));
    blob = fetched ? await fetched.blob() : fromDataUrl(blob);
  }
  return blob.type.startsWith("video/") ? openFilm(blob) : createImageBitmap(blob);
}

/** A film that plays over and over. */
async function openFilm(/** @type {Blob} */ blob) {
  const film = document.createElement("video");
  Object.assign(film, { src: URL.createObjectURL(blob), loop: true, muted: true, playsInline: true });
  try {
    await film.play();
  } catch (error) {
    URL.revokeObjectURL(film.src);
    throw error;
  }
  return film;
}

/** Not by `fetch`, which a page's policy may forbid for data. */
function fromDataUrl(/** @type {string} */ url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (character) => character.charCodeAt(0));
  return new Blob([bytes]);
}
