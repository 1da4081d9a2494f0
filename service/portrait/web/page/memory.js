/** What the page remembers between visits: in this browser, nowhere else. */

const PREFIX = "portrait.";

/** @param {string} name @returns {string | null} null as well where a browser keeps nothing */
export function recall(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/** @param {string} name @param {string} text */
export function remember(name, text) {
  try {
    localStorage.setItem(PREFIX + name, text);
  } catch {
    // It holds for this visit.
  }
}
