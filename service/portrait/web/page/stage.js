/** The stage: one picture, two side by side, or one over the other with a divider. */

import { find, write } from "./dom.js";

/** @typedef {import("./choice.js").Choice} Choice */

/** What the other picture shows, in the words of the list it was chosen from. @type {Record<string, string>} */
const BESIDE = { camera: "Your camera", mode: "Compared: ", way: "The same, " };

export class Stage {
  #stage = find("stage", HTMLDivElement);
  #divider = find("divider", HTMLInputElement);
  #live = false;

  constructor() {
    this.#divider.addEventListener("input", () => this.#divide());
    // A camera on its side has another shape than the one asked for.
    const video = find("preview", HTMLVideoElement);
    video.addEventListener("resize", () => this.#shape(video.videoWidth, video.videoHeight));
    this.#divide();
  }

  /** @param {Choice} choice */
  show({ view, beside, mirror, size }) {
    const list = find("beside", HTMLSelectElement);
    this.#stage.dataset.view = view;
    this.#stage.classList.toggle("mirrored", mirror);
    find("beside-label", HTMLLabelElement).hidden = view === "single";
    find("other", HTMLElement).hidden = view === "single";
    this.#divider.hidden = view !== "wipe" || !this.#live;
    const [kind] = beside.split(":");
    const text = kind === "camera" ? "" : (list.selectedOptions[0]?.text ?? "");
    write("other-caption", BESIDE[kind] + text);
    if (!this.#live) this.#shape(...size.split("x").map(Number));
  }

  /** @param {boolean} live whether there is a camera @param {Choice} choice */
  open(live, choice) {
    this.#live = live;
    this.#stage.dataset.live = live ? "yes" : "no";
    this.show(choice);
  }

  #divide() {
    const { value } = this.#divider;
    this.#stage.style.setProperty("--at", `${Number(value) / 100}`);
    this.#divider.setAttribute("aria-valuetext", `${value} % of the width`);
  }

  #shape(/** @type {number[]} */ ...[width, height]) {
    if (width && height) this.#stage.style.setProperty("--shape", `${width / height}`);
  }
}
