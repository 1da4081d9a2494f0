/** The page's elements, by their ids. */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type what it is
 * @returns {T}
 */
export function find(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`#${id} is no ${type.name}`);
  return found;
}

/** @param {string} id @param {string} text changed only where it differs: what is read aloud is not read twice */
export function write(id, text) {
  const element = find(id, HTMLElement);
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A new element with text or children.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Partial<HTMLElementTagNameMap[K]>} properties
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A picture of the page's own set. @param {string} name */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `/web/page/icons.svg#${name}`);
  svg.append(use);
  return svg;
}
