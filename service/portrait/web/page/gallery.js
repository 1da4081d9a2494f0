/** Backgrounds: colours to choose from, the box's pictures, and the person's own. */

import { find, make, write } from "./dom.js";
import { Trouble } from "./words.js";

/** @typedef {import("./choice.js").Choice} Choice */
/** @typedef {(changes: Partial<Choice>) => void} Choose */

const COLORS = {
  "#00b140": "Green screen",
  "#1f3a5f": "Navy",
  "#2f6f73": "Teal",
  "#6b4e71": "Plum",
  "#b5654a": "Terracotta",
  "#d9c8a9": "Sand",
  "#f2f2ef": "Paper",
  "#17191f": "Ink",
};

const TYPES = ["image/jpeg", "image/png", "image/webp"];

/** Pixels of the longer side of what is sent to the box, which keeps no larger ones. */
const SENT_SIDE = 1920;

export class Gallery {
  #gallery = find("gallery", HTMLDivElement);
  /** @type {File | null} the person's own */
  #own = null;
  #most = { bytes: 32e6, pixels: 25e6 };

  /** @param {Choose} choose @param {(error: unknown) => void} complain */
  constructor(choose, complain) {
    this.choose = choose;
    this.complain = complain;
    const swatches = Object.entries(COLORS).map(([color, name]) => this.#swatch(color, name));
    find("swatches", HTMLDivElement).append(...swatches);
    const input = find("color", HTMLInputElement);
    input.addEventListener("input", () => choose({ color: input.value }));
    const upload = find("upload", HTMLInputElement);
    upload.addEventListener("change", () => {
      this.#take(upload.files?.[0]);
      upload.value = ""; // the same file may be chosen again
    });
    this.#takeDropped();
  }

  /**
   * Show what the box has.
   *
   * @param {string[]} names
   * @param {{max_body_bytes: number, max_background_pixels: number}} limits
   */
  fill(names, limits) {
    // As a data URL a picture is a third longer, with a little around it.
    this.#most = { bytes: Math.floor((limits.max_body_bytes - 1000) * 0.75), pixels: limits.max_background_pixels };
    this.#gallery.replaceChildren(...names.map((name) => this.#thumbnail(name, name, `/v1/backgrounds/${encodeURIComponent(name)}/still`)));
    write("limits", `JPEG, PNG or WebP, up to ${inMegabytes(this.#most.bytes)} and ${inMegapixels(this.#most.pixels)}; or drop one on this page. ` +
      "It is sent to the box only, which forgets it when you stop.");
  }

  /** @param {Choice} choice */
  show({ mode, color, background }) {
    find("colors", HTMLFieldSetElement).hidden = mode !== "color" && mode !== "silhouette";
    find("pictures", HTMLFieldSetElement).hidden = mode !== "image";
    find("color", HTMLInputElement).value = color;
    for (const each of find("swatches", HTMLDivElement).querySelectorAll("input")) each.checked = each.value === color;
    for (const each of this.#gallery.querySelectorAll("input")) {
      each.checked = each.value === (typeof background === "string" ? background : "");
    }
  }

  #swatch(/** @type {string} */ color, /** @type {string} */ name) {
    const input = make("input", { type: "radio", name: "swatch", value: color, ariaLabel: name });
    input.addEventListener("change", () => this.choose({ color }));
    const spot = make("span", { title: name });
    spot.style.background = color;
    return make("label", {}, input, spot);
  }

  /** @param {string} name of the box's; "" for the person's own @param {string} text @param {string} address */
  #thumbnail(name, text, address) {
    const input = make("input", { type: "radio", name: "background", value: name });
    input.addEventListener("change", () => this.choose({ background: name || (this.#own ?? "") }));
    const image = make("img", { src: address, alt: "", width: 160, height: 90, decoding: "async" });
    const label = make("label", {}, input, image, make("span", {}, text.replace(/[-_]/g, " ")));
    label.dataset.name = name;
    return label;
  }

  /** Wherever on the page: a browser would leave it, and the call, for a picture that misses its place. */
  #takeDropped() {
    const place = find("drop", HTMLDivElement);
    const on = (/** @type {"dragover" | "dragleave" | "drop"} */ type, /** @type {(event: DragEvent) => void} */ take) =>
      document.addEventListener(type, (event) => event.dataTransfer?.types.includes("Files") && take(event));
    on("dragover", (event) => {
      event.preventDefault();
      place.classList.add("over");
    });
    on("dragleave", (event) => event.relatedTarget === null && place.classList.remove("over"));
    on("drop", (event) => {
      event.preventDefault();
      place.classList.remove("over");
      this.#take(event.dataTransfer?.files[0]);
    });
  }

  async #take(/** @type {File | undefined} */ file) {
    if (!file) return;
    try {
      this.#own = await shrink(file, this.#most);
    } catch (error) {
      return this.complain(error);
    }
    const before = this.#gallery.querySelector("[data-name='']");
    URL.revokeObjectURL(before?.querySelector("img")?.src ?? "");
    before?.remove();
    this.#gallery.prepend(this.#thumbnail("", "Yours", URL.createObjectURL(this.#own)));
    this.choose({ mode: "image", background: this.#own });
  }
}

/**
 * A picture small enough to be sent, and without what a camera wrote into it besides.
 *
 * @param {File} file
 * @param {{bytes: number, pixels: number}} most
 * @throws {Trouble} it is none, or too large
 */
export async function shrink(file, most) {
  const size = `${file.name}, ${inMegabytes(file.size)}`;
  if (!TYPES.includes(file.type)) {
    throw new Trouble("The box does not accept this kind of file", "Choose a JPEG, PNG or WebP file.", `${file.name}: ${file.type || "unknown type"}`);
  }
  if (file.size > most.bytes) {
    throw new Trouble("This picture is too large", `Choose one of up to ${inMegabytes(most.bytes)}.`, size);
  }
  const picture = await createImageBitmap(file).catch(() => {
    throw new Trouble("This file cannot be read as a picture", "It may be damaged, or of another kind than its name says. Choose another one.", size);
  });
  const { width, height } = picture;
  if (width * height > most.pixels) {
    throw new Trouble("This picture is too large", `Choose one of up to ${inMegapixels(most.pixels)}.`, `${file.name}, ${width} × ${height}`);
  }
  const scale = Math.min(1, SENT_SIDE / Math.max(width, height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  // Not toBlob: Chromium does that when a page has nothing else to do, and in a call that may be long.
  const base64 = canvas.toDataURL("image/jpeg", 0.92).split(",")[1];
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new File([bytes], file.name, { type: "image/jpeg" });
}

/** @param {number} bytes */
function inMegabytes(bytes) {
  return bytes < 1e5 ? `${Math.ceil(bytes / 1000)} KB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

/** @param {number} pixels */
function inMegapixels(pixels) {
  return `${(pixels / 1e6).toFixed(0)} megapixels`;
}
