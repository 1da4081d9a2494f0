/** Masks as they come from the box: messages of a data channel, or frames of a video. */

/**
 * @typedef {object} Mask
 * @property {Uint8Array} values person probability, 0 to 255, row by row
 * @property {number} width
 * @property {number} height
 */

/** @typedef {{mask: Mask, rtp: number}} Stamped a mask with the RTP timestamp of its frame */

const VERSION = 1;
const HEADER_BYTES = 12;

/** The label of the data channel masks come on. */
export const LABEL = "masks";

/**
 * The mask in a message, as docs/reference/protocol.md lays it out; its edge is soft over three pixels.
 *
 * @param {ArrayBuffer} message
 * @returns {Promise<Stamped>}
 */
export async function unpackMask(message) {
  const header = new DataView(message);
  if (header.byteLength < HEADER_BYTES || header.getUint8(0) !== VERSION) throw new Error("got a mask of another version, expected 1");
  const [width, height, rtp] = [header.getUint16(2), header.getUint16(4), header.getUint32(8)];
  const packed = new Blob([new Uint8Array(message, HEADER_BYTES)]).stream();
  const bits = new Uint8Array(await new Response(packed.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  const stride = (width + 7) >> 3;
  if (bits.length !== stride * height) throw new Error(`got ${bits.length} bytes for a mask of ${width}x${height}`);
  const values = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (bits[y * stride + (x >> 3)] & (0x80 >> (x & 7))) values[y * width + x] = 255;
    }
  }
  return { mask: { values: soften(values, width, height), width, height }, rtp };
}

/**
 * One bit has no edge to make steep: the weights 1 2 1 over columns and rows give it one.
 *
 * @param {Uint8Array} values
 * @param {number} width
 * @param {number} height
 */
function soften(values, width, height) {
  const [across, soft] = [new Uint16Array(values.length), new Uint8Array(values.length)];
  for (let y = 0; y < height; y++) {
    for (let x = 0, i = y * width; x < width; x++, i++) {
      across[i] = values[x ? i - 1 : i] + 2 * values[i] + values[x < width - 1 ? i + 1 : i];
    }
  }
  for (let y = 0; y < height; y++) {
    const [up, down] = [y ? -width : 0, y < height - 1 ? width : 0];
    for (let i = y * width; i < (y + 1) * width; i++) {
      soft[i] = (across[i + up] + 2 * across[i] + across[i + down]) >> 4;
    }
  }
  return soft;
}

/** Reads masks out of the pictures of a mask track. */
export class MaskReader {
  #canvas = document.createElement("canvas");
  #context = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d", { willReadFrequently: true }));

  /**
   * @param {import("./frames.js").Picture} picture
   * @param {number} width
   * @param {number} height
   * @returns {Mask}
   */
  read(picture, width, height) {
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      Object.assign(this.#canvas, { width, height });
    }
    this.#context.drawImage(picture, 0, 0, width, height);
    const pixels = this.#context.getImageData(0, 0, width, height).data;
    const values = new Uint8Array(width * height);
    for (let i = 0; i < values.length; i++) values[i] = pixels[4 * i];
    return { values, width, height };
  }
}
