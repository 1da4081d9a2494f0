/** The wall: the cameras that the box's operator has declared, each watched over WHEP while it is switched on. */

import { find, make } from "./dom.js";

/** How often the states are asked for, in milliseconds. */
const REFRESH = 3000;

const RETRY = 3000;

/**
 * @typedef {object} Camera as /v1/cameras has it
 * @property {string} name
 * @property {string} state
 * @property {string} words
 * @property {import("../portrait/types.js").Presence | null} presence while it is watched
 */

/** One camera's place. */
class Tile {
  /** @type {RTCPeerConnection | null} */
  #connection = null;
  #resource = "";
  #said = "";
  #on = false;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
    this.video = make("video", { muted: true, autoplay: true, playsInline: true });
    this.state = make("span", { className: "camera-state" });
    this.button = make("button", { type: "button", className: "tool" }, "Watch");
    this.button.setAttribute("aria-label", `Watch ${name}`);
    this.button.addEventListener("click", () => (this.#on ? this.stop() : this.watch()));
    this.element = make("li", {}, this.video, make("b", {}, name), this.state, this.button);
  }

  /** @param {Camera} camera */
  show(camera) {
    this.element.dataset.state = camera.state;
    const { presence } = camera;
    const seen = presence ? `, ${presence.present ? "somebody" : "nobody"} is there` : "";
    const text = this.#said || camera.words + seen;
    if (this.state.textContent !== text) this.state.textContent = text;
  }

  /** Watch, and again whenever the connection is lost, until `stop`. */
  async watch() {
    this.#switch(true);
    while (this.#on) {
      try {
        await this.#connect();
        this.#said = "";
        await this.#lost();
      } catch (error) {
        this.#said = error instanceof Error ? error.message : String(error);
        this.state.textContent = this.#said;
      }
      this.#close();
      if (this.#on) await new Promise((done) => setTimeout(done, RETRY));
    }
  }

  stop() {
    this.#switch(false);
    this.#said = "";
    this.#close();
  }

  /** @param {boolean} on */
  #switch(on) {
    this.#on = this.video.controls = on;
    this.button.textContent = on ? "Stop" : "Watch";
    this.button.setAttribute("aria-label", `${on ? "Stop" : "Watch"} ${this.name}`);
    this.button.setAttribute("aria-pressed", String(on));
  }

  /** @throws {Error} in the box's words */
  async #connect() {
    const connection = (this.#connection = new RTCPeerConnection());
    const shown = new MediaStream();
    connection.addTransceiver("video", { direction: "recvonly" });
    connection.addTransceiver("audio", { direction: "recvonly" });
    connection.addEventListener("track", ({ track }) => shown.addTrack(track));
    await connection.setLocalDescription();
    await gathered(connection);
    const headers = { "Content-Type": "application/sdp" };
    const body = connection.localDescription?.sdp;
    const response = await fetch(`/whep/${encodeURIComponent(this.name)}`, { method: "POST", headers, body });
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail ?? `status ${response.status}`);
    this.#resource = response.headers.get("Location") ?? "";
    await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
    this.video.srcObject = shown;
    await this.video.play().catch(() => {});
  }

  #lost() {
    const connection = this.#connection;
    return new Promise((done) => {
      const check = () => {
        if (!connection || ["failed", "closed", "disconnected"].includes(connection.connectionState)) done(null);
      };
      connection?.addEventListener("connectionstatechange", check);
      check();
    });
  }

  #close() {
    this.#connection?.close();
    this.#connection = null;
    this.video.srcObject = null;
    if (this.#resource) fetch(this.#resource, { method: "DELETE", keepalive: true }).catch(() => {});
    this.#resource = "";
  }
}

/** Show the box's cameras, and how they are, where it has any. */
export async function openWall() {
  const card = find("wall", HTMLElement);
  const list = find("cameras", HTMLUListElement);
  /** @type {Map<string, Tile>} */
  const tiles = new Map();
  addEventListener("pagehide", () => tiles.forEach((tile) => tile.stop()));

  const refresh = async () => {
    const response = await fetch("/v1/cameras").catch(() => null);
    if (!response?.ok) return false;
    /** @type {Camera[]} */
    const cameras = await response.json();
    for (const camera of cameras) {
      let tile = tiles.get(camera.name);
      if (!tile) {
        tile = new Tile(camera.name);
        tiles.set(camera.name, tile);
        list.append(tile.element);
      }
      tile.show(camera);
    }
    card.hidden = !cameras.length;
    return cameras.length > 0;
  };
  // A box without cameras gets none before it starts again.
  if (await refresh()) setInterval(() => document.hidden || refresh(), REFRESH);
}

/** Until all candidates of an offer are known: the box takes an offer whole. @param {RTCPeerConnection} connection */
function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    const check = () => connection.iceGatheringState === "complete" && done(null);
    connection.addEventListener("icegatheringstatechange", check);
    setTimeout(done, 1000);
  });
}
