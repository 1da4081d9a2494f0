/**
 * The box's network in the page: the same model file, through LiteRT.js, on one thread of WebAssembly with SIMD.
 *
 * Everything is loaded from the box, nothing from other hosts.
 */

import { followEdges, hasChanged, makeGuide } from "./edges.js";

/** Inferences that are measured, after those that warm up. */
const [WARM, MEASURED] = [3, 7];

/** Milliseconds without a frame after which the prior is discarded. */
const GAP = 1000;

/** Where LiteRT.js lies on the box. Its global state allows one per page. */
const RUNTIME = { module: "/litert/index.js", wasm: "/litert/litert_wasm_compat_internal.js" };

/** @typedef {import("./masks.js").Mask} Mask */

export class LocalSegmenter {
  /** Whether a frame is being segmented. */
  busy = false;
  /** @type {any} */
  #model;
  /** @type {any} */
  #litert;
  #width;
  #height;
  /** @type {Float32Array | null} */
  #prior = null;
  #previous = { width: 0, height: 0, at: 0 };
  /** @type {{guide: import("./edges.js").Guide, mask: Mask} | null} */
  #seen = null;
  #context;

  /**
   * @param {string} name the model's on the box
   * @param {any} litert the module
   * @param {any} model compiled
   * @throws {Error} the model has other tensors than the box feeds
   */
  constructor(name, litert, model) {
    this.name = name;
    [this.#litert, this.#model] = [litert, model];
    const image = model.getInputDetails().find((/** @type {any} */ { shape }) => shape[3] === 3);
    if (!image) throw new Error("got a model without an image input, expected one");
    [, this.#height, this.#width] = image.shape;
    const canvas = Object.assign(document.createElement("canvas"), { width: this.#width, height: this.#height });
    this.#context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  }

  /**
   * Load the runtime and a model of the box.
   *
   * @param {import("./signalling.js").Box} box
   * @param {string} [name] the box's default without one
   */
  static async open(box, name) {
    const litert = await loadRuntime(box);
    if (!name) {
      const models = await (await box.fetch("/v1/models")).json();
      name = models.find((/** @type {any} */ model) => model.default).name;
    }
    const chosen = /** @type {string} */ (name);
    const file = await (await box.fetch(`/models/${encodeURIComponent(chosen)}.tflite`)).arrayBuffer();
    return new LocalSegmenter(chosen, litert, await litert.loadAndCompile(new Uint8Array(file), { accelerator: "wasm" }));
  }

  /** Milliseconds of one inference: the median of a few. */
  async measure() {
    const blank = document.createElement("canvas");
    const times = [];
    for (let i = 0; i < WARM + MEASURED; i++) {
      const started = performance.now();
      await this.#infer(blank, blank.width, blank.height);
      times.push(performance.now() - started);
    }
    this.#prior = null;
    return times.slice(WARM).sort((a, b) => a - b)[MEASURED >> 1];
  }

  /**
   * The mask of a frame, which is read before this returns. One at a time.
   *
   * @param {import("./frames.js").Picture} picture
   * @param {number} width
   * @param {number} height
   * @returns {Promise<Mask>}
   */
  async segment(picture, width, height) {
    const now = performance.now();
    const { width: w, height: h, at } = this.#previous;
    if (w !== width || h !== height || now - at > GAP) this.#prior = null;
    this.#previous = { width, height, at: now };
    this.busy = true;
    try {
      return await this.#infer(picture, width, height);
    } catch (error) {
      this.#prior = null;
      throw error;
    } finally {
      this.busy = false;
    }
  }

  close() {
    this.#model.delete();
  }

  /** @type {(picture: CanvasImageSource, width: number, height: number) => Promise<Mask>} */
  async #infer(picture, width, height) {
    const [w, h] = [this.#width, this.#height];
    this.#context.drawImage(picture, 0, 0, width, height, 0, 0, w, h);
    const pixels = this.#context.getImageData(0, 0, w, h).data;
    const guide = makeGuide(pixels, w, h);
    if (this.#seen && hasChanged(this.#seen.guide, guide, this.#seen.mask)) this.#prior = null;
    const rgb = new Float32Array(3 * w * h);
    for (let i = 0, j = 0; j < rgb.length; i += 4) {
      rgb[j++] = pixels[i] / 255;
      rgb[j++] = pixels[i + 1] / 255;
      rgb[j++] = pixels[i + 2] / 255;
    }
    const { Tensor } = this.#litert;
    const prior = this.#prior ?? new Float32Array(w * h);
    // Told apart by their channels, whatever their order in the file.
    const inputs = this.#model
      .getInputDetails()
      .map((/** @type {any} */ { shape }) => new Tensor(shape[3] === 3 ? rgb : prior, Array.from(shape)));
    const outputs = await this.#model.run(inputs);
    const probability = Float32Array.from(outputs[0].toTypedArray());
    for (const tensor of [...inputs, ...outputs]) tensor.delete();
    if (!probability.every(Number.isFinite)) throw new Error("the model's output is not finite");
    this.#prior = probability;
    const values = Uint8Array.from(probability, (p) => Math.round(255 * Math.min(1, Math.max(0, p))));
    const mask = { values, width: w, height: h };
    this.#seen = { guide, mask };
    return followEdges(mask, guide);
  }
}

/** @type {Promise<any> | null} */
let loading = null;

/** LiteRT.js, loaded once: it keeps global state and cannot be loaded twice. */
function loadRuntime(/** @type {import("./signalling.js").Box} */ box) {
  loading ??= (async () => {
    const origin = new URL(box.server || location.origin, location.href);
    const litert = await import(/* @vite-ignore */ /* webpackIgnore: true */ new URL(RUNTIME.module, origin).href);
    await litert.loadLiteRt(new URL(RUNTIME.wasm, origin).href);
    return litert;
  })().catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}
