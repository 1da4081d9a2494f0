/** The two dialogs: code and keys. The browser keeps the focus inside, and gives it back. */

import { LANGUAGES } from "./code.js";
import { find, write } from "./dom.js";

/** @param {string} id of the dialog @param {string} opener id of its button @param {() => void} prepare */
export function openDialog(id, opener, prepare) {
  const dialog = find(id, HTMLDialogElement);
  find(opener, HTMLButtonElement).addEventListener("click", () => {
    prepare();
    dialog.showModal();
  });
  dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
  // A click that begins and ends outside closes it; selecting text inside may end anywhere.
  let pressed = false;
  dialog.addEventListener("pointerdown", (event) => (pressed = isBeside(dialog, event)));
  dialog.addEventListener("click", (event) => pressed && isBeside(dialog, event) && dialog.close());
}

/** @param {HTMLElement} dialog @param {MouseEvent} event */
function isBeside(dialog, { target, clientX, clientY }) {
  const { left, top, right, bottom } = dialog.getBoundingClientRect();
  return target === dialog && (clientX < left || clientX > right || clientY < top || clientY > bottom);
}

/** @param {() => import("./code.js").Scene} look what is on screen */
export function openCode(look) {
  const languages = find("languages", HTMLFieldSetElement);
  const text = find("code-text", HTMLPreElement);
  const show = () => {
    const chosen = /** @type {HTMLInputElement} */ (languages.querySelector(":checked")).value;
    text.textContent = LANGUAGES[chosen].text(look());
    write("code-hint", LANGUAGES[chosen].hint());
    write("copied", "");
  };
  languages.addEventListener("change", show);
  find("copy", HTMLButtonElement).addEventListener("click", async () => {
    write("copied", ""); // so that it is read aloud again
    write("copied", (await copy(text)) ? "Copied" : "Selected: press Ctrl C or ⌘ C");
  });
  openDialog("code", "show-code", show);
}

/** Copy an element's text; where the browser has no clipboard for this page, select it. @param {HTMLElement} element */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent ?? "");
    return true;
  } catch {
    getSelection()?.selectAllChildren(element);
    return false;
  }
}
