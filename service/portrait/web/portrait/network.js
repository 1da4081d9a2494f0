/** Noticing that the device's network has changed, and waiting before the next attempt. */

/**
 * Call `changed` whenever the device is on another network.
 *
 * @param {() => void} changed
 * @param {AbortSignal} signal until then
 */
export function watchNetwork(changed, signal) {
  addEventListener("online", changed, { signal });
  const { connection } = /** @type {any} */ (navigator);
  let type = connection?.type;
  const told = () => {
    // Mostly the event reports a new estimate of the same network's speed.
    if (type !== connection.type) changed();
    type = connection.type;
  };
  connection?.addEventListener("change", told, { signal });
}

/**
 * Wait for a time, or until the signal is aborted.
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
