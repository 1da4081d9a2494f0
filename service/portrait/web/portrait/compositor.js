/**
 * The box's compositors in WebGL 2: the person of a frame before another background, at the frame's full size.
 *
 * The arithmetic is that of service/portrait/compositors: probabilities up to 0.25 count as background, from 0.75 as
 * person, smooth in between, unless `edge` says otherwise; the room is blurred by itself, at 72 pixels of the shorter
 * side with a box of 9, so that the person's colours do not bleed into it.
 */

import { HiddenArea } from "./hiding.js";
import { CELLS, FILL, ROOM, VERTEX } from "./shaders.js";

/** @typedef {import("./types.js").Mode} Mode */

/** @type {Mode[]} in the order of the shader's cases */
export const MODES = ["blur", "color", "image", "cutout", "mask", "alpha", "silhouette", "pixelate", "blur-person"];

/** @type {Mode[]} those that hide the person and keep the room */
export const HIDING = ["silhouette", "pixelate", "blur-person"];

/** Frames held until their masks come: a quarter of a second. */
export const SLOTS = 8;

const SHORT_SIDE = 72;

/** How far beyond the person they are hidden, unless `edge` says otherwise. */
const MARGIN = 0.03;

/** Cells of mode pixelate along the shorter side. */
const CELLS_ACROSS = 10;

/** The probability made steep, as `Options.steep` in compositors/options.py. */
function makeSteep(/** @type {number} */ threshold, /** @type {number} */ feather) {
  return Uint8Array.from({ length: 256 }, (_, i) => {
    const x = Math.min(1, Math.max(0, (i / 255 - threshold) / (2 * feather) + 0.5));
    return Math.round(255 * x * x * (3 - 2 * x));
  });
}

const NOBODY = { values: new Uint8Array(4), width: 2, height: 2 };

export class Compositor {
  canvas = document.createElement("canvas");
  /** @type {Mode} */
  mode = "blur";
  /** @type {[number, number, number]} red, green, blue, 0 to 1 */
  color = [0, 0.69, 0.25];
  /** @type {string | Blob} what the background was opened from; "" before the first */
  source = "";
  #gl;
  #made;
  #next = 0;
  /** @type {ImageBitmap | HTMLVideoElement | null} */
  #background = null;
  #steep = makeSteep(0.5, 0.25);
  #decontaminate = false;
  #margin = MARGIN;
  /** @type {HiddenArea | null} while the mode is one of those that hide the person */
  #hiding = null;
  #closed = false;

  /** @throws {Error} where there is no WebGL 2 */
  constructor() {
    const gl = this.canvas.getContext("webgl2", { premultipliedAlpha: true, preserveDrawingBuffer: true });
    if (gl === null) throw new Error("the browser has no WebGL 2");
    this.#gl = gl;
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.#made = make(gl);
      this.background = this.#background;
    });
    this.#made = make(gl);
  }

  /** Whether this browser can compose. */
  static get available() {
    const gl = document.createElement("canvas").getContext("webgl2");
    gl?.getExtension("WEBGL_lose_context")?.loseContext(); // a page may have some sixteen
    return gl !== null;
  }

  /**
   * @param {{threshold: number, feather: number, decontaminate: boolean, margin?: number}} edge the probability where half
   *   is the person, how far it is soft, whether the old room's colour is taken out of it, and how far beyond it the modes
   *   that hide the person reach
   */
  set edge({ threshold, feather, decontaminate, margin = MARGIN }) {
    this.#steep = makeSteep(threshold, feather);
    this.#decontaminate = decontaminate;
    this.#margin = margin;
  }

  /** @param {ImageBitmap | HTMLVideoElement | null} picture the background of mode image; this compositor closes it */
  set background(picture) {
    if (this.#background !== picture) this.#closeBackground();
    this.#background = picture;
    if (this.#closed) this.#closeBackground(); // it was opened for too long
    if (picture === null || this.#closed) return;
    const gl = this.#gl;
    this.#upload(this.#made.backdrop, picture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR); // it may be far larger
    gl.generateMipmap(gl.TEXTURE_2D);
  }

  /**
   * Keep a frame; the number of the slot it is in, for SLOTS calls.
   *
   * @param {import("./frames.js").Picture} picture
   * @param {number} width
   * @param {number} height
   */
  hold(picture, width, height) {
    const number = this.#next;
    this.#next = (number + 1) % SLOTS;
    const slot = this.#made.slots[number];
    Object.assign(slot, { width, height });
    this.#upload(slot.texture, picture);
    return number;
  }

  /**
   * Show a held frame. Without a mask no pixel of the camera is shown unblurred: of the modes that show the person only
   * the background, of those that hide them the whole picture, blurred.
   *
   * @param {number} number the slot
   * @param {import("./masks.js").Mask | null} mask which belongs to that frame
   */
  draw(number, mask = null) {
    const gl = this.#gl;
    const { slots, fill, ...made } = this.#made;
    const { texture, width, height } = slots[number];
    if (gl.isContextLost() || !width) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const mode = this.#uploadMask(mask);
    if (this.mode === "image" && this.#background instanceof HTMLVideoElement) this.background = this.#background;
    bind(gl, [texture, made.mask, this.mode === "image" ? made.backdrop : made.room]);
    if (mode === "blur" || mode === "blur-person") this.#shrink(made.blurring, SHORT_SIDE, texture, width, height);
    if (mode === "pixelate") this.#shrink(made.cells, CELLS_ACROSS, texture, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, width, height);
    gl.useProgram(fill);
    const at = (/** @type {string} */ name) => gl.getUniformLocation(fill, name);
    gl.uniform1i(at("mode"), MODES.indexOf(mode));
    gl.uniform1i(at("decontaminate"), Number(this.#decontaminate));
    gl.uniform3fv(at("color"), this.color);
    gl.uniform2fv(at("cover"), this.#cover(width, height));
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  close() {
    this.#closed = true;
    this.#closeBackground();
    this.#gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  /**
   * A frame made small by a program, with so many pixels on the shorter side, into the texture `room`.
   *
   * @type {(program: WebGLProgram, shortSide: number, texture: WebGLTexture, width: number, height: number) => void}
   */
  #shrink(program, shortSide, texture, width, height) {
    const gl = this.#gl;
    const { mask, room, target } = this.#made;
    const scale = Math.max(1, Math.min(width, height) / shortSide);
    const size = /** @type {const} */ ([Math.max(1, Math.round(width / scale)), Math.max(1, Math.round(height / scale))]);
    gl.activeTexture(gl.TEXTURE2);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, ...size, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    gl.bindTexture(gl.TEXTURE_2D, null); // what is drawn into cannot be read
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, room, 0);
    gl.viewport(0, 0, ...size);
    gl.useProgram(program);
    gl.uniform2f(gl.getUniformLocation(program, "size"), ...size);
    gl.uniform1i(gl.getUniformLocation(program, "even"), Number(this.mode !== "blur"));
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    bind(gl, [texture, mask, room]);
  }

  /** The share of the background's width and height that a frame of this size shows, so that it is covered. */
  #cover(/** @type {number} */ width, /** @type {number} */ height) {
    if (this.#background === null) return [1, 1];
    const { videoWidth = 0, videoHeight = 0 } = /** @type {Partial<HTMLVideoElement>} */ (this.#background);
    const ratio = width / height / ((videoWidth || this.#background.width) / (videoHeight || this.#background.height));
    return ratio > 1 ? [1, 1 / ratio] : [ratio, 1];
  }

  #closeBackground() {
    if (this.#background instanceof ImageBitmap) this.#background.close();
    if (!(this.#background instanceof HTMLVideoElement)) return;
    this.#background.pause();
    URL.revokeObjectURL(this.#background.src);
  }

  /**
   * The probability and what is mixed by, side by side; the mode to draw in. What is mixed by is the probability's steep
   * form or, in modes that hide the person, what is hidden: all of the picture without a mask, which is blurred then.
   *
   * @param {import("./masks.js").Mask | null} mask
   * @returns {Mode}
   */
  #uploadMask(mask) {
    const gl = this.#gl;
    const hides = HIDING.includes(this.mode);
    if (!hides) this.#hiding = null;
    else this.#hiding ??= new HiddenArea();
    const shares = this.#hiding?.follow(mask, this.#steep, this.#margin);
    const { values, width, height } = mask ?? NOBODY;
    const pairs = new Uint8Array(2 * values.length);
    for (let i = 0; i < values.length; i++) {
      pairs[2 * i] = values[i];
      pairs[2 * i + 1] = hides ? (shares?.[i] ?? 255) : this.#steep[values[i]];
    }
    gl.bindTexture(gl.TEXTURE_2D, this.#made.mask);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RG8, width, height, 0, gl.RG, gl.UNSIGNED_BYTE, pairs);
    return hides && !shares ? "blur-person" : this.mode;
  }

  #upload(/** @type {WebGLTexture} */ texture, /** @type {TexImageSource} */ picture) {
    const gl = this.#gl;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
  }
}

/** What the context holds; all of it is lost with the context. */
function make(/** @type {WebGL2RenderingContext} */ gl) {
  return {
    fill: program(gl, FILL),
    blurring: program(gl, ROOM),
    cells: program(gl, CELLS),
    slots: Array.from({ length: SLOTS }, () => ({ texture: newTexture(gl), width: 0, height: 0 })),
    mask: newTexture(gl),
    room: newTexture(gl),
    backdrop: newTexture(gl),
    target: gl.createFramebuffer(),
  };
}

/** The textures on the units the shaders read: frame, mask, background. */
function bind(/** @type {WebGL2RenderingContext} */ gl, /** @type {WebGLTexture[]} */ textures) {
  for (const [unit, texture] of [...textures.entries()].reverse()) {
    gl.activeTexture(gl.TEXTURE0 + unit); // unit 0 is the last and stays active
    gl.bindTexture(gl.TEXTURE_2D, texture);
  }
}

function newTexture(/** @type {WebGL2RenderingContext} */ gl) {
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  return texture;
}

function program(/** @type {WebGL2RenderingContext} */ gl, /** @type {string} */ fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of /** @type {[number, string][]} */ ([[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]])) {
    const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`a shader does not link: ${gl.getProgramInfoLog(made)}`);
  }
  gl.useProgram(made);
  for (const [unit, name] of ["frame", "mask", "background"].entries()) {
    gl.uniform1i(gl.getUniformLocation(made, name), unit);
  }
  return made;
}
