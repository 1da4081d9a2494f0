/** Single keys, for those who like them: WCAG 2.1.4 asks that they can be switched off. */

import { find, make } from "./dom.js";
import { recall, remember } from "./memory.js";

/** @typedef {{key: string, words: string, run: () => void}} Key */

/** What takes keys itself. */
const FIELDS = "input:not([type=radio], [type=checkbox]), select, textarea, [contenteditable], dialog[open]";

/** Let these keys work, and list them in the dialog. @param {Key[]} keys */
export function openKeys(keys) {
  const on = find("keys-on", HTMLInputElement);
  on.checked = recall("keys") !== "off";
  on.addEventListener("change", () => remember("keys", on.checked ? "on" : "off"));
  find("key-list", HTMLDListElement).append(
    ...keys.map(({ key, words }) => make("div", {}, make("dt", {}, make("kbd", {}, key.toUpperCase())), make("dd", {}, words))),
  );
  document.addEventListener("keydown", (event) => {
    const { target, ctrlKey, altKey, metaKey, repeat } = event;
    if (!on.checked || ctrlKey || altKey || metaKey || repeat || event.defaultPrevented) return;
    if (target instanceof Element && target.closest(FIELDS)) return;
    keys.find(({ key }) => key === event.key.toLowerCase())?.run();
  });
}
