/** Light, dark, or like the system has it. */

import { remember } from "./memory.js";

const THEMES = ["system", "light", "dark"];

/** Let a button go from one to the next; what was chosen is remembered. @param {HTMLButtonElement} button */
export function openAppearance(button) {
  const show = () => {
    const theme = document.documentElement.dataset.theme ?? "system";
    button.querySelector("use")?.setAttribute("href", `/web/page/icons.svg#${theme}`);
    button.setAttribute("aria-label", `Appearance: ${theme === "system" ? "as the system" : theme}`);
    button.title = `${button.getAttribute("aria-label")} (D)`;
  };
  button.addEventListener("click", () => {
    const { dataset } = document.documentElement;
    dataset.theme = THEMES[(THEMES.indexOf(dataset.theme ?? "system") + 1) % THEMES.length];
    remember("theme", dataset.theme);
    show();
  });
  show();
}
