"""The STUN and TURN servers that clients are told to use: the operator's own, with credentials that expire.

The service uses none: a client's relayed address reaches the host candidates of the answer.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence

from portrait.errors import BadSettings

URL = re.compile(r"(stuns?|turns?):(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?(\?transport=(udp|tcp))?")
"""RFC 7064 and RFC 7065."""

NAME = "portrait"
"""The second part of the user name; the first is the time at which it expires."""


class IceServers:
    """The servers, as `Link: rel="ice-server"` headers name them (RFC 9725 section 4.6).

    Raises:
        BadSettings: an address of another form, TURN without a secret, or a secret without TURN.
    """

    def __init__(
        self, urls: Sequence[str] = (), secret: str = "", seconds: float = 3600, clock: Callable[[], float] = time.time
    ) -> None:
        for url in urls:
            if URL.fullmatch(url) is None or (url.startswith("stun") and "?" in url):
                expected = "stun:HOST[:PORT] or turn:HOST[:PORT][?transport=udp|tcp], with stuns: and turns: for TLS"
                raise BadSettings(f"PORTRAIT_ICE_URLS: got {url!r}, expected {expected}")
        if any(url.startswith("turn") for url in urls) != bool(secret):
            raise BadSettings("PORTRAIT_TURN_SECRET and a turn: address in PORTRAIT_ICE_URLS go together")
        self.urls = tuple(urls)
        self._secret, self._seconds, self._clock = secret.encode(), seconds, clock

    def links(self) -> list[str]:
        """A Link header for each server, with fresh credentials for TURN."""
        username, credential = self.credentials()
        return [
            f'<{url}>; rel="ice-server"; username="{username}"; credential="{credential}"; credential-type="password"'
            if url.startswith("turn")
            else f'<{url}>; rel="ice-server"'
            for url in self.urls
        ]

    def credentials(self) -> tuple[str, str]:
        """(user name, password) that TURN accepts until they expire.

        The REST scheme, coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00 section 2.2).
        """
        username = f"{self._clock() + self._seconds:.0f}:{NAME}"
        return username, base64.b64encode(hmac.digest(self._secret, username.encode(), hashlib.sha1)).decode()
