/** HTTP between a page and the box: offers, changes, numbers, refusals. */

const FRAGMENT = "application/trickle-ice-sdpfrag";

/** A refusal of the service. */
export class PortraitError extends Error {
  /**
   * @param {{title?: string, detail?: string, status?: number}} problem RFC 9457
   * @param {number} [retryAfter] seconds
   */
  constructor(problem, retryAfter) {
    super(problem.detail ?? problem.title ?? `status ${problem.status}`);
    this.name = "PortraitError";
    /** The machine-readable name, TOO_MANY_SESSIONS for one. */
    this.reason = problem.title ?? "";
    this.status = problem.status ?? 0;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status >= 500 || this.status === 408 || this.status === 409 || this.status === 429;
  }
}

/** The HTTP API of the box. */
export class Box {
  /**
   * @param {string} server origin, "" for the page's own
   * @param {string} [token] bearer token
   */
  constructor(server, token) {
    this.server = server;
    /** @type {Record<string, string>} */
    this.authorization = token ? { Authorization: `Bearer ${token}` } : {};
  }

  /**
   * @param {string} path or a whole URL on the box
   * @param {RequestInit} [request]
   * @throws {PortraitError} when the box refuses
   */
  async fetch(path, request = {}) {
    const url = new URL(path, new URL(this.server || location.origin, location.href));
    const response = await fetch(url, { ...request, headers: { ...request.headers, ...this.authorization } });
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After"));
    let problem = { status: response.status };
    try {
      problem = await response.json();
    } catch {
      // Not from the box but, for example, a proxy: the status is all there is.
    }
    throw new PortraitError(problem, wait > 0 ? wait : undefined);
  }

  /**
   * The STUN and TURN servers the box names for a path (RFC 9725 section 4.6); none where it names none.
   *
   * @param {string} path
   */
  async iceServers(path) {
    try {
      return readIceServers(await this.fetch(path, { method: "OPTIONS" }));
    } catch {
      return [];
    }
  }

  /**
   * @param {string} path
   * @param {string} sdp
   */
  async offer(path, sdp) {
    const headers = { "Content-Type": "application/sdp" };
    const response = await this.fetch(path, { method: "POST", headers, body: sdp });
    const resource = new URL(response.headers.get("Location") ?? "", response.url).href;
    const etag = response.headers.get("ETag") ?? "*";
    return { answer: await response.text(), resource, etag, iceServers: readIceServers(response) };
  }

  /**
   * PATCH with candidates.
   *
   * @param {string} resource
   * @param {string} etag the answer's
   * @param {string} fragment RFC 8840
   */
  async trickle(resource, etag, fragment) {
    const headers = { "Content-Type": FRAGMENT, "If-Match": etag };
    return this.fetch(resource, { method: "PATCH", headers, body: fragment });
  }
}

/** @param {Response} response @returns {RTCIceServer[]} */
export function readIceServers(response) {
  const links = response.headers.get("Link") ?? "";
  const servers = [];
  for (const [, urls, parameters] of links.matchAll(/<((?:stun|turn)s?:[^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"[^"]*"|[^,;\s]*))*)/g)) {
    const given = Object.fromEntries(
      [...parameters.matchAll(/;\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^,;\s]*))/g)].map(([, name, quoted, plain]) => [name, quoted ?? plain]),
    );
    if (given.rel !== "ice-server") continue;
    servers.push({ urls, ...(given.username && { username: given.username, credential: given.credential ?? "" }) });
  }
  return servers;
}
