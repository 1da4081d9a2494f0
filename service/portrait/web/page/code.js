/**
 * What is on screen as programs of one's own: a page, a Python client over gRPC, a still with curl.
 *
 * Text only; nothing here looks at the page. The tests run what comes out.
 */

import { lookOf, PLAIN } from "./choice.js";
import { optionsOf } from "./pane.js";

/** @typedef {import("./choice.js").Choice} Choice */

/**
 * @typedef {object} About as /v1/about tells
 * @property {number | null} grpc_port
 * @property {boolean} tls
 * @property {boolean} authority whether the box's certificate is of its own authority
 * @property {boolean} token whether a call must bring one
 */

/** @typedef {{choice: Choice, about: About, origin: string, hostname: string}} Scene */

/** @type {Record<string, {text: (scene: Scene) => string, hint: () => string}>} */
export const LANGUAGES = {
  page: {
    text: toPage,
    hint: () =>
      "A whole page. On another server than this one, set PORTRAIT_ORIGINS=https://that.server on the box. Browsers allow " +
      "the camera on https and localhost only.",
  },
  python: {
    text: toPython,
    hint: () =>
      "Python, with the client that comes with the service (pip install . in its folder); it reads a camera, a file or an " +
      "address. Behind a proxy, ask for its gRPC address.",
  },
  shell: { text: toShell, hint: () => "One picture; the result has the same size." },
};

/** Names for strings in JavaScript and Python alike. @param {string} text */
const quoted = (text) => JSON.stringify(text);

/** @param {Choice} choice @returns {string} the file's name, or the name of the box's picture */
function nameOf({ background }) {
  return typeof background === "string" ? background : background.name;
}

/** @param {Scene} scene */
export function toPage({ choice, about, origin }) {
  const { view, beside, way, mode, size, mirror } = choice;
  const [width, height] = size.split("x");
  const [kind, value] = view === "single" ? [""] : beside.split(":");
  const turned = mirror ? ' style="transform: scaleX(-1)"' : "";
  const video = (/** @type {string} */ id) => `<video id="${id}" autoplay muted playsinline${turned}></video>`;
  const show = (/** @type {string} */ id, /** @type {string} */ from) => `  document.getElementById("${id}").srcObject = ${from};`;
  const other = /** @type {Choice} */ ({ ...choice, ...(kind === "mode" && { mode: value }), ...(kind === "way" && { way: value }) });
  const own = typeof choice.background !== "string" && [mode, other.mode].includes("image");
  const lines = [
    "<!doctype html>",
    ...(kind ? [video("beside")] : []),
    video("result"),
    '<script type="module">',
    `  import { connect } from ${quoted(`${origin}/portrait.js`)};`,
    "",
    "  const camera = await navigator.mediaDevices.getUserMedia({",
    `    video: { width: ${width}, height: ${height}, frameRate: 30 },`,
    "  });",
    ...(own ? [`  const picture = await (await fetch(${quoted(encodeURIComponent(nameOf(choice)))})).blob(); // beside this page`] : []),
    `  const session = await connect(camera, ${toOptions({ ...choice, way }, about, origin)});`,
    show("result", "session.output"),
    ...(kind === "camera" ? [show("beside", "camera")] : []),
    ...(kind === "mode" || kind === "way"
      ? [`  const other = await connect(camera, ${toOptions(other, about, origin)});`, show("beside", "other.output")]
      : []),
    "</script>",
    "",
  ];
  return lines.join("\n");
}

/** Edges and framing, where they are not as they are anyway. @param {Choice} choice @param {Choice["way"]} [way] */
function chosen(choice, way) {
  const look = lookOf(choice, way);
  const names = /** @type {(keyof typeof PLAIN)[]} */ (Object.keys(PLAIN));
  return names.filter((name) => look[name] !== PLAIN[name]).map((name) => /** @type {const} */ ([name, look[name]]));
}

/** The options of `connect`, without those that say what is so anyway. @param {Choice} choice @param {About} about @param {string} origin */
function toOptions(choice, about, origin) {
  const { mode, color, way } = choice;
  const options = [`server: ${quoted(origin)}`];
  if (about.token) options.push('token: "YOUR TOKEN"');
  if (way !== "composite") {
    options.push(...Object.entries(optionsOf(way)).map(([name, value]) => `${name}: ${quoted(String(value))}`));
  }
  options.push(`mode: ${quoted(mode)}`);
  if (mode === "color" || mode === "silhouette") options.push(`color: ${quoted(color)}`);
  if (mode === "image") options.push(`background: ${typeof choice.background === "string" ? quoted(nameOf(choice)) : "picture"}`);
  options.push(...chosen(choice).map(([name, value]) => `${name}: ${typeof value === "string" ? quoted(value) : value}`));
  return `{\n${options.map((option) => `    ${option},\n`).join("")}  }`;
}

/** @param {Scene} scene */
export function toPython({ choice, about, hostname }) {
  const { mode, color, size } = choice;
  const [width, height] = size.split("x");
  const grey = mode === "mask" || mode === "alpha";
  const own = mode === "image" && typeof choice.background !== "string";
  const output = [`mode=${quoted(mode)}`];
  if (mode === "color" || mode === "silhouette") output.push(`color=${quoted(color)}`);
  if (mode === "image") {
    output.push(own ? `background_picture=Path(${quoted(nameOf(choice))}).read_bytes()` : `background_name=${quoted(nameOf(choice))}`);
  }
  output.push(...chosen(choice, "composite").map(([name, value]) => `${name}=${value === true ? "True" : typeof value === "string" ? quoted(value) : value}`));
  output.push(grey ? "mask_size=MASK_SIZE_FRAME" : "format=PICTURE_FORMAT_RGB24");
  const client = [quoted(`${hostname}:${about.grpc_port ?? 50051}`)];
  if (about.token) client.push('token=os.environ["TOKEN"]');
  if (about.tls) client.push(about.authority ? 'tls=Tls(roots=Path("ca.crt").read_bytes())' : "tls=Tls()");
  const lines = [
    ...(about.token ? ["import os"] : []),
    "import sys",
    ...(own || about.authority ? ["from pathlib import Path"] : []),
    "",
    "import cv2",
    `from portrait.client import SyncClient${about.tls ? ", Tls" : ""}`,
    `from portrait.v1.segmentation_pb2 import ${grey ? "MASK_SIZE_FRAME" : "PICTURE_FORMAT_RGB24"}`,
    "",
    "SOURCE = sys.argv[1] if len(sys.argv) > 1 else 0  # a file or an address; else the first camera",
    "",
    "",
    "def frames():",
    "    video = cv2.VideoCapture(SOURCE)",
    `    video.set(cv2.CAP_PROP_FRAME_WIDTH, ${width})`,
    `    video.set(cv2.CAP_PROP_FRAME_HEIGHT, ${height})`,
    "    while (picture := video.read()[1]) is not None:",
    "        yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)",
    "",
    "",
    ...(about.authority ? ["# ca.crt: the box's authority, which the page /trust gives"] : []),
    `with SyncClient(${client.join(", ")}) as client:`,
    "    replies = client.stream(",
    "        frames(),",
    ...output.map((option) => `        ${option},`),
    "    )",
    "    for reply in replies:",
    `        picture = reply.array  # (height, width${grey ? ")" : ", 3)"} uint8${grey ? "" : " RGB"}`,
    "        print(reply.id, picture.shape, reply.dropped)",
    `        cv2.imwrite("portrait.png", ${grey ? "picture" : "cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)"})`,
    "",
  ];
  return lines.join("\n");
}

/** @param {Scene} scene */
export function toShell({ choice, about, origin }) {
  const { mode, color } = choice;
  const own = mode === "image" && typeof choice.background !== "string";
  const query = new URLSearchParams({ mode });
  if (mode === "color" || mode === "silhouette") query.set("color", color);
  if (mode === "image" && !own) query.set("background", nameOf(choice));
  for (const [name, value] of chosen(choice, "composite")) query.set(name, String(value));
  const words = [
    "curl",
    ...(about.authority ? ["--cacert ca.crt"] : []),
    ...(about.token ? ['-H "Authorization: Bearer $TOKEN"'] : []),
    "-F image=@me.jpg",
    ...(own ? [`-F ${inShell(`background=@"${nameOf(choice)}"`)}`] : []),
    inShell(`${origin}/v1/segment?${query}`),
    "-o portrait.png",
  ];
  return `${words.join(" ")}\n`;
}

/** @param {string} text as one word of a shell */
function inShell(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
