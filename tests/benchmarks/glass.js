// The page of tests/benchmarks/latency.py: one connection, and when each numbered frame was painted before and after it.

const COLUMNS = 4;
const ROWS = 3;

/** The number in a video's current picture, or -1. */
function reader(video, place) {
  const canvas = document.createElement("canvas");
  canvas.width = COLUMNS;
  canvas.height = ROWS;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return () => {
    const scale = video.videoWidth / 640;
    for (let row = 0; row < ROWS; row++) {
      for (let column = 0; column < COLUMNS; column++) {
        // The inner half of a block: its edges are blurred.
        const x = (place.x + (column + 0.25) * place.block) * scale;
        const y = (place.y + (row + 0.25) * place.block) * scale;
        const side = 0.5 * place.block * scale;
        context.drawImage(video, x, y, side, side, column, row, 1, 1);
      }
    }
    const pixels = context.getImageData(0, 0, COLUMNS, ROWS).data;
    const grey = Array.from({ length: COLUMNS * ROWS }, (_, i) => pixels[4 * i + 1]);
    const [dark, bright, ...rest] = grey;
    if (bright - dark < 40) return -1;
    const bits = rest.map((value) => (value > (dark + bright) / 2 ? 1 : 0));
    const number = bits.slice(0, 8).reduce((sum, bit) => 2 * sum + bit, 0);
    const parity = bits.slice(0, 8).reduce((sum, bit) => sum ^ bit, 0);
    return bits[8] === parity && bits[9] === 1 - parity ? number : -1;
  };
}

/** Call `seen(number, time)` for every picture a video paints. */
function watch(video, place, seen) {
  const read = reader(video, place);
  const step = (now) => {
    seen(read(), now);
    video.requestVideoFrameCallback(step);
  };
  video.requestVideoFrameCallback(step);
}

export class Glass {
  /** Milliseconds from the preview's picture to the result's of the same number. */
  latencies = [];
  painted = 0;
  unread = 0;
  longest = 0;
  #sent = new Map();
  #last = 0;

  async open(place, keepSize) {
    const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, frameRate: 30 } });
    const [preview, result] = document.querySelectorAll("video");
    this.connection = new RTCPeerConnection({ iceServers: [] });
    const transceiver = this.connection.addTransceiver(camera.getVideoTracks()[0], {
      direction: "sendrecv",
      streams: [camera],
    });
    this.connection.ontrack = (event) => { result.srcObject = new MediaStream([event.track]); };
    await this.connection.setLocalDescription();
    await new Promise((done) => {
      this.connection.onicegatheringstatechange = () => this.connection.iceGatheringState === "complete" && done();
      setTimeout(done, 1000);
    });
    const response = await fetch("/webrtc?mode=blur", {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: this.connection.localDescription.sdp,
    });
    if (!response.ok) throw new Error(await response.text());
    await this.connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
    if (keepSize) {
      const parameters = transceiver.sender.getParameters();
      parameters.degradationPreference = "maintain-resolution";
      await transceiver.sender.setParameters(parameters);
    }
    preview.srcObject = camera;
    await Promise.all([preview.play(), result.play()]);
    watch(preview, place, (number, time) => this.#sent.set(number, time));
    watch(result, place, (number, time) => this.#seen(number, time));
  }

  #seen(number, time) {
    if (this.#last) this.longest = Math.max(this.longest, time - this.#last);
    this.#last = time;
    this.painted += 1;
    const sent = this.#sent.get(number);
    if (number < 0) this.unread += 1;
    // A number comes again after 256 frames, 8.5 s.
    else if (sent !== undefined && time - sent < 8000) this.latencies.push(time - sent);
  }

  /** Forget what was measured so far. */
  restart() {
    Object.assign(this, { latencies: [], painted: 0, unread: 0, longest: 0 });
  }

  /** What the browser counts, and what was measured here. */
  async report() {
    const reports = [...(await this.connection.getStats()).values()];
    const sent = reports.find((report) => report.type === "outbound-rtp");
    const received = reports.find((report) => report.type === "inbound-rtp");
    return {
      up: [sent.frameWidth, sent.frameHeight],
      down: [received.frameWidth, received.frameHeight],
      limitation: sent.qualityLimitationReason,
      bytesSent: sent.bytesSent,
      decoded: received.framesDecoded,
      freezes: received.freezeCount,
      painted: this.painted,
      unread: this.unread,
      longest: this.longest,
      latencies: this.latencies,
    };
  }
}
