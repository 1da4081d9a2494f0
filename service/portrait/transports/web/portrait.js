/**
 * Camera up, composed picture down, over one WebRTC connection.
 *
 *   import { PortraitSession } from "/web/portrait.js";
 *   const camera = await navigator.mediaDevices.getUserMedia({ video: true });
 *   const session = await PortraitSession.open({ stream: camera, mode: "blur" });
 *   video.srcObject = session.result;
 *   await session.change({ mode: "color", color: "#204060" });
 *   session.close();
 *
 * Events: "closed" (detail: why), once.
 */

/** Milliseconds to wait for candidates; hosts on a LAN are known at once. */
const GATHERING = 1000;

/** What the service answered instead of what was asked for. */
export class PortraitError extends Error {
  /** @param {{title?: string, detail?: string, status?: number}} problem RFC 9457 */
  constructor(problem) {
    super(problem.detail ?? problem.title ?? `status ${problem.status}`);
    this.name = "PortraitError";
    this.reason = problem.title;
    this.status = problem.status;
  }
}

export class PortraitSession extends EventTarget {
  #connection;
  #resource;
  #previous = { delay: 0, emitted: 0 };
  #closed = false;

  /** The composed video. @type {MediaStream} */
  result = new MediaStream();

  /**
   * Connect and wait until the service has answered.
   *
   * @param {object} options
   * @param {MediaStream} options.stream a stream with a video track
   * @param {string} [options.server] origin of the service; this page's own by default
   * @param {string} [options.mode] mask, alpha, blur, color or image
   * @param {string} [options.color] #rrggbb
   * @param {string} [options.background] name of a background the service has
   * @param {string} [options.model] name of a model the service has
   * @throws {PortraitError} when the service refuses
   */
  static async open({ stream, server = "", ...options }) {
    const session = new PortraitSession();
    try {
      await session.#connect(stream, server, options);
    } catch (error) {
      session.close("never opened");
      throw error;
    }
    return session;
  }

  /**
   * Let the result look otherwise; holds from the next frame on.
   *
   * @param {{mode?: string, color?: string, background?: string, reset?: boolean}} changes background: a name, or a
   *   data URL of a picture
   */
  async change(changes) {
    const response = await fetch(this.#resource, {
      method: "PATCH",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(changes),
    });
    return checked(response).then((r) => r.json());
  }

  /** What the service counts for this session: frames done and dropped, latency, mode. */
  async numbers() {
    return checked(await fetch(this.#resource)).then((r) => r.json());
  }

  /**
   * What the browser measures, since the call before: frames per second and size of the result, seconds of one round
   * trip on the network and of waiting in the browser's jitter buffer.
   */
  async statistics() {
    const found = { framesPerSecond: 0, width: 0, height: 0, roundTrip: 0, buffered: 0 };
    for (const report of (await this.#connection.getStats()).values()) {
      if (report.type === "inbound-rtp" && report.kind === "video") {
        found.framesPerSecond = report.framesPerSecond ?? 0;
        found.width = report.frameWidth ?? 0;
        found.height = report.frameHeight ?? 0;
        const emitted = (report.jitterBufferEmittedCount ?? 0) - this.#previous.emitted;
        const delay = (report.jitterBufferDelay ?? 0) - this.#previous.delay;
        found.buffered = emitted > 0 ? delay / emitted : 0;
        this.#previous = { delay: report.jitterBufferDelay ?? 0, emitted: report.jitterBufferEmittedCount ?? 0 };
      } else if (report.type === "candidate-pair" && report.nominated) {
        found.roundTrip = report.currentRoundTripTime ?? 0;
      }
    }
    return found;
  }

  /** End the session here and on the service. */
  close(why = "closed here") {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection?.close();
    if (this.#resource) fetch(this.#resource, { method: "DELETE", keepalive: true }).catch(() => {});
    this.dispatchEvent(new CustomEvent("closed", { detail: why }));
  }

  async #connect(stream, server, options) {
    const connection = new RTCPeerConnection({ iceServers: [] });
    this.#connection = connection;
    connection.addTransceiver(stream.getVideoTracks()[0], { direction: "sendrecv", streams: [stream] });
    connection.addEventListener("track", (event) => this.result.addTrack(event.track));
    connection.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(connection.connectionState)) this.close("the connection was lost");
    });
    await connection.setLocalDescription();
    await gathered(connection);
    const query = new URLSearchParams(Object.entries(options).filter(([, value]) => value));
    const response = await checked(
      await fetch(`${server}/webrtc?${query}`, {
        method: "POST",
        headers: { "Content-Type": "application/sdp" },
        body: connection.localDescription.sdp,
      }),
    );
    this.#resource = new URL(response.headers.get("Location"), response.url).href;
    await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }
}

function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => connection.iceGatheringState === "complete" && resolve();
    connection.addEventListener("icegatheringstatechange", done);
    setTimeout(resolve, GATHERING);
  });
}

async function checked(response) {
  if (response.ok) return response;
  let problem = { status: response.status };
  try {
    problem = await response.json();
  } catch {
    // Not ours: a proxy's page, say. The status is all there is.
  }
  throw new PortraitError(problem);
}
