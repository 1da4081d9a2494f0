/** The page at /: what a person sees of portrait.js. One state, the choice; parts that show it; the call that follows it. */

import { openAppearance } from "./page/appearance.js";
import { Call } from "./page/call.js";
import { isRefused, listCameras, obstacle } from "./page/camera.js";
import { completed, PLAIN, recallChoice, rememberChoice } from "./page/choice.js";
import { openCode, openDialog } from "./page/dialogs.js";
import { find, make, write } from "./page/dom.js";
import { Gallery } from "./page/gallery.js";
import { openKeys } from "./page/keys.js";
import { Numbers } from "./page/numbers.js";
import { Stage } from "./page/stage.js";
import { openWall } from "./page/wall.js";
import { cameraTrouble, inWords } from "./page/words.js";

/** @typedef {import("./page/choice.js").Choice} Choice */
/** @typedef {import("./page/words.js").Words} Words */

/** What each mode is good for. */
const MODES = {
  blur: "Your room, out of focus.",
  color: "One colour behind you: green for programs that key it out.",
  image: "A picture behind you.",
  mask: "What the network sees: the whiter, the more certain that it is you.",
  alpha: "The mask as it is applied: sharp, with a soft edge.",
  silhouette: "You, as one plain shape. Not anonymous: the mask may miss parts of you.",
  pixelate: "You, in large squares. Not anonymous: the mask may miss parts of you.",
  "blur-person": "You, out of focus. Not anonymous: the mask may miss parts of you.",
};

/** What each way means. */
const WAYS = {
  composite: "The box, the computer that serves this page, does everything: any device will do.",
  mask: "The box sends masks as a video; this browser composes the picture at full size.",
  data: "The box sends masks of half a kilobyte; this browser composes the picture at full size.",
  browser: "The network runs in this browser; the camera’s picture never leaves it.",
  auto: "This browser if it is fast enough, otherwise the box.",
};

const VIEWS = /** @type {Choice["view"][]} */ (["single", "pair", "wipe"]);

/** Lists of the form, and the choice each makes. */
const LISTS = /** @type {const} */ ({ way: "way", resolution: "size", device: "device", beside: "beside", people: "people" });
const RANGES = /** @type {const} */ (["threshold", "feather"]);
const BOXES = /** @type {const} */ (["mirror", "decontaminate", "framing"]);

const choice = recallChoice();
let about = { grpc_port: null, tls: location.protocol === "https:", authority: false, token: false };

const stage = new Stage();
const numbers = new Numbers();
const gallery = new Gallery(choose, (error) => explain(inWords(error)));
const call = new Call(
  choice,
  { main: find("result", HTMLVideoElement), other: find("preview", HTMLVideoElement) },
  {
    state: showState,
    trouble: explain,
    camera(camera) {
      numbers.follow(camera);
      stage.open(camera !== null, choice);
      if (camera) showCameras();
    },
    session: (session) => numbers.show(session),
    kept: choose,
    alone: () => choose({ beside: "camera" }),
  },
);

const toggle = find("toggle", HTMLButtonElement);
toggle.addEventListener("click", () => (call.on ? call.stop() : call.start()));
for (const [id, name] of Object.entries(LISTS)) {
  const list = find(id, HTMLSelectElement);
  list.addEventListener("change", () => choose({ [name]: list.value }));
}
for (const name of ["mode", "view"]) {
  for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll(`[name=${name}]`))) {
    input.addEventListener("change", () => choose({ [name]: input.value }));
  }
}
for (const name of RANGES) {
  const range = find(name, HTMLInputElement);
  range.addEventListener("input", () => choose({ [name]: range.valueAsNumber }));
}
for (const name of BOXES) {
  const box = find(name, HTMLInputElement);
  box.addEventListener("change", () => choose({ [name]: box.checked }));
}
find("controls", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
find("plain", HTMLButtonElement).addEventListener("click", () => choose(PLAIN));
navigator.mediaDevices?.addEventListener("devicechange", showCameras);
addEventListener("pagehide", () => call.leave());
addEventListener("pageshow", ({ persisted }) => persisted && showState("idle", "Camera off"));

openAppearance(find("theme", HTMLButtonElement));
openCode(() => ({ choice, about, origin: location.origin, hostname: location.hostname }));
openDialog("keys", "show-keys", () => {});
openKeys([
  { key: "s", words: "Start or stop the camera", run: () => toggle.click() },
  ...Object.keys(MODES).map((mode, i) => ({
    key: String(i + 1),
    words: `${i < 5 ? "Behind you" : "Hide you"}: ${document.querySelector(`[name=mode][value=${mode}]`)?.parentElement?.textContent?.trim().toLowerCase()}`,
    run: () => choose({ mode: /** @type {Choice["mode"]} */ (mode) }),
  })),
  { key: "v", words: "Next view", run: () => choose({ view: VIEWS[(VIEWS.indexOf(choice.view) + 1) % VIEWS.length] }) },
  { key: "m", words: "Mirror on or off", run: () => choose({ mirror: !choice.mirror }) },
  { key: "c", words: "What is on screen, as code", run: () => find("show-code", HTMLButtonElement).click() },
  { key: "d", words: "Light, dark, or like the system", run: () => find("theme", HTMLButtonElement).click() },
  { key: "?", words: "This list", run: () => find("show-keys", HTMLButtonElement).click() },
]);

find("trust", HTMLElement).hidden = location.protocol !== "https:";
show();
welcome();
askBox();
openWall();

/** Change what is chosen: everything follows. @param {Partial<Choice>} changes */
function choose(changes) {
  Object.assign(choice, completed(choice, changes));
  rememberChoice(choice);
  show();
  call.settle();
}

/** Let the whole form say what is chosen. */
function show() {
  for (const [id, name] of Object.entries(LISTS)) {
    const list = find(id, HTMLSelectElement);
    list.value = choice[name];
    if (list.selectedIndex < 0) list.selectedIndex = 0; // a camera of an earlier visit, which has no name yet
  }
  for (const name of /** @type {const} */ (["mode", "view"])) {
    const input = /** @type {HTMLInputElement} */ (document.querySelector(`[name=${name}][value=${choice[name]}]`));
    input.checked = true;
  }
  for (const name of RANGES) find(name, HTMLInputElement).valueAsNumber = choice[name];
  for (const name of BOXES) find(name, HTMLInputElement).checked = choice[name];
  write("mode-hint", MODES[choice.mode]);
  write("way-hint", WAYS[choice.way]);
  const { way } = choice;
  find("framing", HTMLInputElement).disabled = way !== "composite";
  find("people", HTMLSelectElement).disabled = way !== "composite";
  find("framing-hint", HTMLElement).hidden = way === "composite";
  const goes = way === "browser" ? "stays in this browser" : `goes to this box, ${location.hostname}, and nowhere else`;
  write("why", `Your browser will ask whether this page may use the camera: it is for this picture only. It ${goes}; nothing is stored.`);
  stage.show(choice);
  gallery.show(choice);
}

/** @param {import("./page/call.js").State} state @param {string} text */
function showState(state, text) {
  const pill = find("state", HTMLElement);
  pill.dataset.state = state;
  write("state", text);
  write("toggle", call.on ? "Stop camera" : "Start camera");
  toggle.classList.toggle("running", call.on);
}

/** Say what is wrong and what to do; nothing is wrong with null. @param {Words | null} words */
function explain(words) {
  const notice = find("problem", HTMLElement);
  notice.hidden = words === null;
  notice.replaceChildren();
  if (words === null) return;
  const wait = words.wait ? ` (in ${words.wait} s)` : "";
  notice.append(make("strong", {}, words.title), make("p", {}, words.advice + wait));
  if (words.said) notice.append(make("small", {}, words.said));
  notice.scrollIntoView({ block: "nearest" });
}

/** Say at once what cannot work here at all. */
async function welcome() {
  const wrong = obstacle();
  if (wrong) explain(wrong.words);
  else if (await isRefused()) explain(cameraTrouble(new DOMException("refused earlier", "NotAllowedError")).words);
  else showCameras();
}

/** Offer the cameras there are. */
function showCameras() {
  listCameras(find("device", HTMLSelectElement), () => choice.device);
}

/** What the box has and asks for. */
async function askBox() {
  try {
    // From the origin: an address with a token in it, which the browser asked for, is refused by fetch.
    const ask = async (/** @type {string} */ path) => (await fetch(location.origin + path)).json();
    const [told, names] = await Promise.all([ask("/v1/about"), ask("/v1/backgrounds")]);
    about = told;
    gallery.fill(names, told);
    if (typeof choice.background === "string" && !names.includes(choice.background)) choose({ background: names[0] });
    show();
  } catch (error) {
    explain(inWords(error));
  }
}
