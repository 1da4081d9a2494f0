/** One WebRTC connection to the box: the camera up; the result down, as a video or as messages. */

import { changesBetween } from "./look.js";
import { LABEL } from "./masks.js";
import { PortraitError } from "./signalling.js";

/** @typedef {import("./signalling.js").Box} Box */
/** @typedef {import("./types.js").Look} Look */

/** Milliseconds an offer waits for candidates; hosts on a LAN are known at once, the others are sent after it. */
const GATHERING = 500;

/** Milliseconds a connection may be silent before it counts as lost: a phone changes its network in less. */
const PATIENCE = 3000;

/** Milliseconds without a packet from the box after which it is asked whether the session still exists. */
const SILENCE = 500;

/**
 * Milliseconds between the end of a link and the end of its connection. Chromium loses a frame, and warns of it, if a track
 * ends while the frame is being read. All readers stop when the link ends; after this time none of them is reading any more.
 * By then the box has also answered the request that ends the session. If the connection were closed first, the box would end
 * the session because of that, and answer the request with 404.
 */
const LINGER = 500;

/** The label of the data channel on which the box reports what happens to the session. */
const EVENTS = "events";

/**
 * Events: "track" (detail: MediaStreamTrack), "message" (detail: ArrayBuffer), "sent" (detail: RTP timestamp), "goaway"
 * (detail: seconds until the box ends the session), "refused" (detail: why frames are refused, null when they no longer are), "presence" (detail:
 * whether a person is in the picture), "lost" (detail: reason).
 */
export class Link extends EventTarget {
  #box;
  #connection;
  #resource = "";
  #etag = "";
  #ended = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #patience;
  /** @type {RTCIceCandidate[] | null} candidates that came after the offer, until there is a resource for them */
  #late = [];
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch;
  #previous = { delay: 0, emitted: 0 };
  /** @type {Worker | null} */
  #worker = null;
  /** @type {MediaStreamTrack | null} the video that comes down */
  track = null;
  /** @type {Promise<void>} fulfilled when the first result has come, rejected when the connection is lost before */
  flowing;
  #flow = () => {};
  /** @type {Look | null} the look that the box was last told */
  look = null;
  /** Why the connection ends when it does. */
  #reason = "the box has ended the session";

  /** @param {Box} box @param {RTCIceServer[]} iceServers */
  constructor(box, iceServers) {
    super();
    this.#box = box;
    this.#connection = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.flowing = new Promise((resolve, reject) => {
      this.#flow = resolve;
      this.addEventListener("lost", reject, { once: true });
    });
    this.flowing.catch(() => {}); // not every caller waits for it
    this.#connection.addEventListener("track", ({ track }) => {
      this.track = track;
      track.addEventListener("unmute", this.#flow, { once: true });
      this.#tell("track", track);
    });
    this.#connection.addEventListener("connectionstatechange", () => this.#stateChanged());
  }

  /**
   * Connect. The box has answered when this returns.
   *
   * @param {Box} box
   * @param {MediaStreamTrack} track
   * @param {"composite" | "mask" | "data"} result
   * @param {Record<string, string>} query further options of the session
   * @param {(link: Link) => void} listen called before anything can happen
   * @throws {PortraitError | TypeError} the box refuses, or cannot be reached
   */
  static async open(box, track, result, query, listen) {
    const link = new Link(box, await box.iceServers("/webrtc"));
    listen(link);
    try {
      await link.#open(track, result, query);
    } catch (error) {
      link.close();
      throw error;
    }
    return link;
  }

  get resource() {
    return this.#resource;
  }

  /** @returns {Promise<Record<string, any>>} what the box counts */
  async numbers() {
    return (await this.#box.fetch(this.#resource)).json();
  }

  /**
   * Change how the result looks.
   *
   * @param {Look} look
   * @throws {PortraitError} the box refuses; nothing has changed then
   * @throws {DOMException} it was closed meanwhile: a box that has stopped may never answer
   */
  async wear(look) {
    const changes = await changesBetween(this.look, look);
    const headers = { "Content-Type": "application/json" };
    const { signal } = this.#ended;
    const request = { method: "PATCH", headers, body: JSON.stringify(changes), signal };
    if (Object.keys(changes).length) await this.#box.fetch(this.#resource, request);
    this.look = look;
  }

  /** Seconds of a round trip and, since the last call, in the jitter buffer; and the size and rate of the video. */
  async statistics() {
    const found = { framesPerSecond: 0, width: 0, height: 0, roundTrip: 0, buffered: 0, relayed: false };
    const reports = await this.#connection.getStats();
    for (const report of reports.values()) {
      if (report.type === "inbound-rtp" && report.kind === "video") {
        const [delay, emitted] = [report.jitterBufferDelay ?? 0, report.jitterBufferEmittedCount ?? 0];
        const { delay: before, emitted: seen } = this.#previous;
        Object.assign(found, {
          framesPerSecond: report.framesPerSecond ?? 0,
          width: report.frameWidth ?? 0,
          height: report.frameHeight ?? 0,
          buffered: emitted > seen ? (delay - before) / (emitted - seen) : 0,
        });
        this.#previous = { delay, emitted };
      } else if (report.type === "candidate-pair" && report.nominated) {
        found.roundTrip = report.currentRoundTripTime ?? 0;
        found.relayed = reports.get(report.localCandidateId)?.candidateType === "relay";
      }
    }
    return found;
  }

  /** Close here and on the box: nothing is sent any more. Idempotent. */
  close() {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    clearTimeout(this.#patience);
    clearInterval(this.#watch);
    this.#worker?.terminate();
    for (const sender of this.#connection.getSenders()) sender.replaceTrack(null).catch(() => {}); // its section was refused
    if (this.#resource) this.#box.fetch(this.#resource, { method: "DELETE", keepalive: true }).catch(() => {});
    setTimeout(() => this.#connection.close(), LINGER);
  }

  /** @type {(track: MediaStreamTrack, result: string, query: Record<string, string>) => Promise<void>} */
  async #open(track, result, query) {
    const connection = this.#connection;
    const direction = result === "data" ? "sendonly" : "sendrecv";
    const { sender, receiver } = connection.addTransceiver(track, { direction });
    // Each mask is wanted as soon as it arrives, however unevenly they do.
    if (result === "mask") Object.assign(receiver, { jitterBufferTarget: 0 });
    if (result !== "composite") this.#watchSent(sender);
    if (result === "data") this.#listen(connection.createDataChannel(LABEL, { ordered: false, maxRetransmits: 0 }));
    connection.createDataChannel(EVENTS).addEventListener("message", ({ data }) => {
      const { goaway, refused, closed, presence } = JSON.parse(data);
      if (presence !== undefined) this.#tell("presence", presence);
      if (goaway !== undefined) this.#tell("goaway", goaway);
      if (refused !== undefined) this.#tell("refused", refused);
      if (closed !== undefined) this.#reason = closed;
    });
    connection.addEventListener("icecandidate", ({ candidate }) => candidate && this.#found(candidate));
    await connection.setLocalDescription();
    await gathered(connection);
    this.#late = [];
    const offer = /** @type {RTCSessionDescription} */ (connection.localDescription).sdp;
    const path = `/webrtc?${new URLSearchParams({ result, ...query })}`;
    const { answer, resource, etag, iceServers } = await this.#box.offer(path, offer);
    [this.#resource, this.#etag] = [resource, etag];
    if (this.#ended.signal.aborted) throw new DOMException("closed while it connected", "AbortError");
    if (iceServers.length) connection.setConfiguration({ iceServers, bundlePolicy: "max-bundle" });
    await connection.setRemoteDescription({ type: "answer", sdp: answer });
    // The box has closed the connection, which remains "connected" here until ICE gives up.
    sender.transport?.addEventListener("statechange", () => {
      if (sender.transport?.state === "closed") this.#tell("lost", this.#reason);
    });
    this.#sendLate();
    this.#watchSilence();
  }

  /** A worker of the box that was killed closes nothing, and ICE takes many seconds to notice; the other workers know. */
  #watchSilence() {
    let before = 0;
    this.#watch = setInterval(async () => {
      const received = [...(await this.#connection.getStats()).values()]
        .filter(({ type }) => type === "transport")
        .reduce((sum, { packetsReceived = 0 }) => sum + packetsReceived, 0);
      const silent = received === before;
      before = received;
      if (!silent || this.#connection.connectionState !== "connected") return;
      try {
        await this.numbers();
      } catch (error) {
        if (error instanceof PortraitError && error.status === 404) this.#tell("lost", "the box has lost the session");
      }
    }, SILENCE);
  }

  #sendLate() {
    const late = this.#late ?? [];
    this.#late = null;
    for (const candidate of late) this.#found(candidate);
  }

  #found(/** @type {RTCIceCandidate} */ candidate) {
    if (this.#late) return void this.#late.push(candidate);
    const offer = this.#connection.localDescription?.sdp ?? "";
    // When it is refused or too late, the candidates of the offer have to do.
    this.#box.trickle(this.#resource, this.#etag, fragment(offer, [`a=${candidate.candidate}`])).catch(() => {});
  }

  /** Report the RTP timestamps of what is sent. Only a worker can read them. */
  #watchSent(/** @type {RTCRtpSender} */ sender) {
    if (!("RTCRtpScriptTransform" in globalThis)) return;
    const worker = openWorker(new URL("./rtp-worker.js", import.meta.url));
    worker.addEventListener("message", ({ data }) => this.#tell("sent", data));
    sender.transform = new RTCRtpScriptTransform(worker, {});
    this.#worker = worker;
  }

  #listen(/** @type {RTCDataChannel} */ channel) {
    channel.binaryType = "arraybuffer";
    channel.addEventListener("message", this.#flow, { once: true });
    channel.addEventListener("message", ({ data }) => this.#tell("message", data));
  }

  #stateChanged() {
    const state = this.#connection.connectionState;
    clearTimeout(this.#patience);
    if (state === "failed" || state === "closed") this.#tell("lost", "the connection was lost");
    else if (state === "disconnected") {
      this.#patience = setTimeout(() => this.#tell("lost", "the network is silent"), PATIENCE);
    }
  }

  #tell(/** @type {string} */ type, /** @type {unknown} */ detail) {
    if (!this.#ended.signal.aborted) this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** A worker of a script that may lie on another origin than the page. */
function openWorker(/** @type {URL} */ script) {
  if (script.origin === location.origin) return new Worker(script, { type: "module" });
  const url = URL.createObjectURL(new Blob([`import ${JSON.stringify(script.href)};`], { type: "text/javascript" }));
  return new Worker(url, { type: "module" });
}

/** @returns {Promise<void>} */
function gathered(/** @type {RTCPeerConnection} */ connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && resolve());
    setTimeout(resolve, GATHERING);
  });
}

/** The first line of a description that gives this attribute. */
function line(/** @type {string} */ sdp, /** @type {string} */ name) {
  return sdp.match(new RegExp(`^a=${name}:.*$`, "m"))?.[0] ?? "";
}

function candidates(/** @type {string} */ sdp) {
  return sdp.match(/^a=candidate:.*$/gm) ?? [];
}

/** A trickle-ice-sdpfrag (RFC 8840) of the first media section. */
function fragment(/** @type {string} */ sdp, /** @type {string[]} */ found) {
  const media = sdp.match(/^m=.*$/m)?.[0] ?? "";
  return [line(sdp, "ice-ufrag"), line(sdp, "ice-pwd"), media, line(sdp, "mid"), ...found, ""].join("\r\n");
}
