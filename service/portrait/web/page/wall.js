/** The wall: the cameras and the published streams of the box, each watched over WHEP while it is switched on. */

import { Box } from "../portrait/signalling.js";
import { find, make } from "./dom.js";

/** How often the states are asked for, in milliseconds. */
const REFRESH = 3000;

const RETRY = 3000;

/** Milliseconds an offer waits for candidates. */
const GATHERING = 1000;

/** The label of the data channel on which the box tells of presence. */
const EVENTS = "events";

/** @typedef {import("../portrait/types.js").Presence} Presence */

/**
 * @typedef {object} Stream
 * @property {string} name
 * @property {string} state "live", "failed" and so on, as a camera's
 * @property {string} words what there is to say of it
 * @property {Presence | null} presence while pictures are worked on
 */

/** @type {Stream["state"][]} the states of a connection that is over */
const OVER = ["failed", "closed", "disconnected"];

const box = new Box("");

/** One stream's place. */
class Tile {
  /** @type {RTCPeerConnection | null} */
  #connection = null;
  #resource = "";
  #said = "";
  /** @type {Stream} */
  #stream;
  watched = false;

  /** @param {Stream} stream */
  constructor(stream) {
    this.#stream = stream;
    this.video = make("video", { muted: true, autoplay: true, playsInline: true });
    this.video.setAttribute("aria-label", stream.name);
    this.state = make("span", { className: "stream-state" });
    this.button = make("button", { type: "button", className: "tool" });
    this.button.addEventListener("click", () => (this.watched ? this.stop() : this.watch()));
    this.element = make("li", {}, this.video, make("b", {}, stream.name), this.state, this.button);
    this.#switch(false);
    this.show(stream);
  }

  /** @param {Stream} stream */
  show(stream) {
    this.#stream = stream;
    this.element.dataset.state = stream.state;
    const { presence } = stream;
    const seen = presence ? `, ${presence.present ? "somebody" : "nobody"} is there` : "";
    const text = this.#said || stream.words + seen;
    if (this.state.textContent !== text) this.state.textContent = text;
  }

  /** Watch, and again whenever the connection is lost, until `stop`. */
  async watch() {
    this.#switch(true);
    while (this.watched) {
      try {
        await this.#connect();
        this.#say("");
        await this.#lost();
      } catch (error) {
        this.#say(error instanceof Error ? error.message : String(error));
      }
      this.#close();
      if (this.watched) await new Promise((done) => setTimeout(done, RETRY));
    }
  }

  stop() {
    this.#switch(false);
    this.#close();
    this.#say("");
  }

  /** What takes the place of the stream's own words, if it is anything. */
  #say(/** @type {string} */ words) {
    this.#said = this.watched ? words : "";
    this.show(this.#stream);
  }

  /** @param {boolean} on */
  #switch(on) {
    this.watched = this.video.controls = on;
    this.button.textContent = on ? "Stop" : "Watch";
    this.button.setAttribute("aria-label", `${on ? "Stop" : "Watch"} ${this.#stream.name}`);
    this.button.setAttribute("aria-pressed", String(on));
  }

  /** @throws {Error} in the box's words */
  async #connect() {
    const path = `/whep/${encodeURIComponent(this.#stream.name)}`;
    const connection = new RTCPeerConnection({ iceServers: await box.iceServers(path), bundlePolicy: "max-bundle" });
    this.#connection = connection;
    const shown = new MediaStream();
    connection.addTransceiver("video", { direction: "recvonly" });
    connection.addTransceiver("audio", { direction: "recvonly" });
    connection.addEventListener("track", ({ track }) => shown.addTrack(track));
    connection.createDataChannel(EVENTS).addEventListener("message", ({ data }) => {
      const { presence } = JSON.parse(data);
      if (presence) this.show({ ...this.#stream, presence });
    });
    await connection.setLocalDescription();
    await gathered(connection);
    const { answer, resource } = await box.offer(path, connection.localDescription?.sdp ?? "");
    this.#resource = resource;
    if (!this.watched) return;
    await connection.setRemoteDescription({ type: "answer", sdp: answer });
    this.video.srcObject = shown;
    await this.video.play().catch(() => {});
  }

  #lost() {
    const connection = this.#connection;
    return new Promise((done) => {
      const check = () => (!connection || OVER.includes(connection.connectionState)) && done(null);
      connection?.addEventListener("connectionstatechange", check);
      check();
    });
  }

  #close() {
    this.#connection?.close();
    this.#connection = null;
    this.video.srcObject = null;
    if (this.#resource) box.fetch(this.#resource, { method: "DELETE", keepalive: true }).catch(() => {});
    this.#resource = "";
  }
}

/** Show the box's cameras and published streams, and how they are, while it has any. */
export async function openWall() {
  const card = find("wall", HTMLElement);
  const list = find("streams", HTMLUListElement);
  /** @type {Map<string, Tile>} */
  const tiles = new Map();
  addEventListener("pagehide", () => tiles.forEach((tile) => tile.stop()));

  const refresh = async () => {
    const streams = await listStreams().catch(() => null); // the box may be away for a while
    if (!streams) return;
    for (const stream of streams) {
      const tile = tiles.get(stream.name) ?? new Tile(stream);
      if (!tiles.has(stream.name)) list.append(tile.element);
      tiles.set(stream.name, tile);
      tile.show(stream);
    }
    const names = new Set(streams.map(({ name }) => name));
    for (const [name, tile] of tiles) {
      if (names.has(name)) continue;
      if (tile.watched) {
        tile.show({ name, state: "failed", words: "has ended", presence: null });
      } else {
        tile.element.remove();
        tiles.delete(name);
      }
    }
    card.hidden = !tiles.size;
  };
  await refresh();
  setInterval(() => document.hidden || refresh(), REFRESH);
}

/** @returns {Promise<Stream[]>} the declared cameras, and after them what clients publish */
async function listStreams() {
  const ask = async (/** @type {string} */ path) => (await box.fetch(path)).json();
  const [cameras, sessions] = await Promise.all([ask("/v1/cameras"), ask("/v1/sessions")]);
  const declared = new Set(cameras.map((/** @type {Stream} */ { name }) => name));
  const published = sessions
    .filter((/** @type {{stream: string | null}} */ { stream }) => stream !== null && !declared.has(stream))
    .map((/** @type {Record<string, any>} */ { stream, width, height, frames_per_second: rate, presence }) => ({
      name: stream,
      state: "live",
      words: width ? `published, ${width}x${height}` : "published",
      presence: rate ? presence : null, // else what was so long ago
    }));
  return [...cameras, ...published];
}

/** Until all candidates of an offer are known: the box takes an offer whole. @param {RTCPeerConnection} connection */
function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    const check = () => connection.iceGatheringState === "complete" && done(null);
    connection.addEventListener("icegatheringstatechange", check);
    setTimeout(done, GATHERING);
  });
}
