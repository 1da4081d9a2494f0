// The page at /: what a person sees of portrait.js.

import { connect } from "/portrait.js";

const REFRESH = 1000;
const UPLOAD_SIDE = 1280;

const $ = (id) => document.getElementById(id);
const look = { mode: "blur", color: "#00b140", background: "" };
let camera = null;
let session = null;
let timer = 0;

$("toggle").addEventListener("click", () => (session ? stop() : start()));
$("modes").addEventListener("change", (event) => choose({ mode: event.target.value }));
$("color").addEventListener("input", (event) => choose({ color: event.target.value }));
$("way").addEventListener("change", reroute);
$("upload").addEventListener("change", (event) => upload(event.target.files[0]));
window.addEventListener("pagehide", () => session?.close("the page was left"));
fillGallery();
$("trust").hidden = location.protocol !== "https:";

async function start() {
  $("toggle").disabled = true;
  explain("");
  show("connecting", "Asking for the camera");
  const way = $("way").value;
  try {
    camera = await openCamera();
    $("preview").srcObject = camera;
    show("connecting", "Connecting");
    const options = ["browser", "auto"].includes(way) ? { where: way } : { result: way };
    const asked = { ...look };
    session = await connect(camera, { ...options, ...asked, background: asked.background || gallery()[0] });
    session.addEventListener("state", (event) => changed(event.detail));
    session.addEventListener("closed", (event) => ended(event.detail));
    $("result").srcObject = session.output;
    tellPlace();
    changed(session);
    $("toggle").textContent = "Stop";
    timer = setInterval(refresh, REFRESH);
    // Chosen while it connected.
    await apply(Object.fromEntries(Object.entries(look).filter(([name, value]) => value !== asked[name])));
  } catch (error) {
    stopCamera();
    session = null;
    show("failed", "Not connected");
    explain(error.explanation ?? `The service answered: ${error.message}`);
  } finally {
    $("toggle").disabled = false;
  }
  if (session && way !== $("way").value) await reroute(); // chosen meanwhile
}

function stop() {
  session?.close("stopped");
}

/** The camera goes another way from now on. */
async function reroute() {
  if (!session) return;
  stop();
  await start();
}

function changed({ state, reason }) {
  if (state === "live") show("live", "Live");
  if (state === "reconnecting") show("connecting", `Reconnecting: ${reason}`);
}

function ended(why) {
  clearInterval(timer);
  session = null;
  stopCamera();
  $("result").srcObject = null;
  $("toggle").textContent = "Start camera";
  $("place").textContent = "";
  for (const id of ["fps", "latency", "size", "dropped"]) $(id).textContent = "–";
  if (why === "stopped") show("idle", "Camera off");
  else {
    show("failed", "Ended");
    explain(`The session ended: ${why}. Start the camera again to reconnect.`);
  }
}

/** Where the masks are made and the picture is composed, and why. */
function tellPlace() {
  const { where, result, reason } = session;
  const places = {
    composite: "The box makes masks and picture.",
    mask: "The box makes masks, this browser the picture.",
    data: "The box makes masks, this browser the picture.",
  };
  const place = where === "browser" ? "This browser does everything." : places[result];
  $("place").textContent = reason ? `${place} (${reason})` : place;
  $("whereto").textContent = `Your camera, mirrored. It ${where === "browser" ? "stays in this browser" : "goes to this box only"}.`;
}

async function openCamera() {
  if (!window.isSecureContext) {
    throw explained(
      "Browsers give the camera to secure pages only. Open this page as http://localhost, or over https://: " +
        `${location.origin} is neither.`,
    );
  }
  const [width, height] = $("resolution").value.split("x").map(Number);
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30 } },
    });
  } catch (error) {
    throw explained(
      {
        NotAllowedError: "The camera was refused. Allow it in the browser's address bar (and in the system's privacy settings), then start again.",
        NotFoundError: "No camera was found. Connect one, then start again.",
        NotReadableError: "The camera is in use by another program. Close that one, then start again.",
        OverconstrainedError: "The camera cannot give this size. Choose another one.",
      }[error.name] ?? `The camera could not be opened: ${error.message}`,
    );
  }
}

function explained(explanation) {
  return Object.assign(new Error(explanation), { explanation });
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  $("preview").srcObject = null;
}

async function choose(changes) {
  if (changes.mode === "image" && !look.background) changes.background = gallery()[0];
  Object.assign(look, changes);
  $("colors").hidden = look.mode !== "color";
  $("pictures").hidden = look.mode !== "image";
  for (const button of $("gallery").children) {
    button.setAttribute("aria-pressed", String(button.dataset.name === look.background));
  }
  if (session) await apply(changes);
}

async function apply(changes) {
  try {
    if (changes.background) await session.setBackground(changes.background);
    if (changes.color) await session.setColor(changes.color);
    if (changes.mode) await session.setMode(changes.mode);
    explain("");
  } catch (error) {
    explain(`The service answered: ${error.message}`);
  }
}

async function refresh() {
  const active = session;
  try {
    const stats = await active.stats();
    $("fps").textContent = stats.framesPerSecond.toFixed(0);
    $("latency").textContent = `${(stats.latency * 1000).toFixed(0)} ms`;
    $("size").textContent = stats.width ? `${stats.width} × ${stats.height}` : "–";
    $("dropped").textContent = stats.dropped;
  } catch {
    // Between two connections there are no numbers; the session itself says when it is over.
  }
}

function gallery() {
  return [...$("gallery").children].map((button) => button.dataset.name);
}

async function fillGallery() {
  const names = await (await fetch("/v1/backgrounds")).json();
  for (const name of names) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = name;
    button.setAttribute("aria-pressed", "false");
    const image = document.createElement("img");
    image.src = `/v1/backgrounds/${encodeURIComponent(name)}/still`;
    image.alt = name;
    button.append(image);
    button.addEventListener("click", () => choose({ background: name }));
    $("gallery").append(button);
  }
}

/** The chosen file, made small enough to send, as the background. It goes to this box and is gone with the session. */
async function upload(file) {
  if (!file) return;
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, UPLOAD_SIDE / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    await choose({ background: canvas.toDataURL("image/jpeg", 0.9) });
  } catch {
    explain("This file is no picture the browser can read.");
  }
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

function explain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}
