/** The network a page is on: when it is another one, and waiting until the box may be back. */

/**
 * Call `changed` whenever it is another network.
 *
 * @param {() => void} changed
 * @param {AbortSignal} signal until then
 */
export function watchNetwork(changed, signal) {
  addEventListener("online", changed, { signal });
  const { connection } = /** @type {any} */ (navigator);
  let type = connection?.type;
  const told = () => {
    // Mostly it tells another estimate of how fast the same one is.
    if (type !== connection.type) changed();
    type = connection.type;
  };
  connection?.addEventListener("change", told, { signal });
}

/**
 * Wait, or until it is aborted.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
  });
}
