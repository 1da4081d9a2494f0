// What the tests do inside a page: a camera whose frames are numbered, and what becomes of them.
//
// Five bits in the upper quarter say which frame it is; a magenta mark below on the right stands for the room.

window.kit = {
  /** A camera of 30 frames per second that plays for ever; `start` sets its numbers off. */
  camera(width = 640, height = 360) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    let number = 0;
    const draw = () => {
      number = (number + 1) % 20;
      context.fillStyle = "#808080";
      context.fillRect(0, 0, width, height);
      for (let bit = 0; bit < 5; bit++) {
        context.fillStyle = (number >> bit) & 1 ? "#fff" : "#000";
        context.fillRect((bit * width) / 5, 0, width / 5, height / 4);
      }
      context.fillStyle = "#ff00ff";
      context.fillRect(0.85 * width, 0.5 * height, 0.15 * width, 0.5 * height);
    };
    draw();
    setInterval(draw, 1000 / 30);
    const stream = canvas.captureStream(30);
    stream.canvas = canvas;
    return stream;
  },

  /** A session that is kept, with its events. */
  async connect(options, size = [640, 360]) {
    const { connect } = await import("/portrait.js");
    kit.events = [];
    kit.stream = kit.camera(...size);
    kit.session = await connect(kit.stream, options);
    for (const type of ["state", "retry", "refused", "closed"]) {
      kit.session.addEventListener(type, ({ detail }) => kit.events.push([type, detail]));
    }
    const { where, result, reason, state } = kit.session;
    return { where, result, reason, state };
  },

  /**
   * The next frames of the output: the number in each, how many of 32 columns show the person in its lower part, and how
   * many pixels of the room.
   */
  async watch(count, milliseconds = 60000) {
    if (!kit.video) {
      kit.video = Object.assign(document.createElement("video"), { muted: true, autoplay: true });
      kit.paper = Object.assign(document.createElement("canvas"), { width: 320, height: 180 });
      kit.pen = kit.paper.getContext("2d", { willReadFrequently: true });
      document.body.append(kit.video);
    }
    if (kit.video.srcObject !== kit.session.output) kit.video.srcObject = kit.session.output;
    const found = [];
    const ends = performance.now() + milliseconds;
    while (found.length < count && performance.now() < ends) {
      const frame = new Promise((resolve) => kit.video.requestVideoFrameCallback(() => resolve(true)));
      if (!(await Promise.race([frame, new Promise((resolve) => setTimeout(resolve, ends - performance.now()))]))) break;
      found.push(kit.read());
    }
    return found;
  },

  read() {
    const [width, height] = [320, 180];
    kit.pen.drawImage(kit.video, 0, 0, width, height);
    const { data } = kit.pen.getImageData(0, 0, width, height);
    const at = (x, y) => data.subarray(4 * (Math.floor(y * height) * width + Math.floor(x * width)));
    let number = 0;
    for (let bit = 0; bit < 5; bit++) if (at((bit + 0.5) / 5, 0.1)[0] > 128) number |= 1 << bit;
    let columns = 0;
    for (let x = 0; x < 160; x++) columns += at((x + 0.5) / 160, 0.7)[0] > 64 ? 1 / 5 : 0;
    let room = 0;
    for (let i = 0; i < data.length; i += 4) room += data[i] > 150 && data[i + 1] < 90 && data[i + 2] > 150;
    return { number, columns, room, size: [kit.video.videoWidth, kit.video.videoHeight] };
  },
};
