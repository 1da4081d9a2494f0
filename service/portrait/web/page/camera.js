/** The camera: whether a page may ask for one, asking, and which there are. */

import { cameraTrouble, Trouble } from "./words.js";

/** Why this page cannot ask for a camera at all; null where it can. */
export function obstacle() {
  if (!window.isSecureContext) {
    const port = location.port ? `:${location.port}` : "";
    return new Trouble(
      "Browsers allow the camera on secure pages only",
      `This page came over plain http. On the box itself, open http://localhost${port} instead. From elsewhere it must be ` +
        `https://${location.hostname}${port}: the box's operator enables that with “--tls auto”.`,
      `${location.origin} is not a secure context`,
    );
  }
  if (!navigator.mediaDevices?.getUserMedia) {
    return new Trouble("This browser gives pages no camera", "Use a current Chrome, Edge, Firefox or Safari.");
  }
  return null;
}

/**
 * Ask for it; the browser asks the person.
 *
 * @param {string} size WxH
 * @param {string} device its id; "" leaves it to the browser
 * @throws {Trouble}
 */
export async function openCamera(size, device) {
  const wrong = obstacle();
  if (wrong) throw wrong;
  const [width, height] = size.split("x").map(Number);
  const video = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30 } };
  try {
    const chosen = device ? { ...video, deviceId: { exact: device } } : { ...video, facingMode: "user" };
    return await navigator.mediaDevices.getUserMedia({ audio: false, video: chosen });
  } catch (error) {
    // The one chosen on an earlier visit may be gone.
    if (device && /** @type {DOMException} */ (error).name === "OverconstrainedError") return openCamera(size, "");
    throw cameraTrouble(error);
  }
}

/** Whether the person has refused the camera for good; false where the browser does not tell. */
export async function isRefused() {
  try {
    const found = await navigator.permissions.query({ name: /** @type {PermissionName} */ ("camera") });
    return found.state === "denied";
  } catch {
    return false;
  }
}

/**
 * Fill a list with the cameras there are; a browser tells their names when one has been allowed.
 *
 * @param {HTMLSelectElement} list
 * @param {() => string} chosen the id of the one wanted, when they are known
 */
export async function listCameras(list, chosen) {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const cameras = devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  const options = cameras.map(({ deviceId, label }, i) => new Option(label || `Camera ${i + 1}`, deviceId));
  list.replaceChildren(new Option("the browser’s choice", ""), ...options);
  list.value = chosen();
  if (list.selectedIndex < 0) list.value = "";
}
