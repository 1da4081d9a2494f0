"""The image's health check: whether the service is ready.

It asks over the loopback, without TLS and then with it, since variables, flags or a settings file may turn TLS on.
The certificate is not verified: it need not name the loopback address.
"""

import contextlib
import http.client
import os
import ssl
import sys
import urllib.request

PORT = os.environ.get("PORTRAIT_HTTP_PORT", "8080")


def main() -> int:
    """Ask; returns the exit status: 0 when ready, else 1."""
    for scheme in ("http", "https"):
        # A TLS port answers plain HTTP with an alert, which is not HTTP, or not at all.
        with contextlib.suppress(OSError, http.client.HTTPException):
            url = f"{scheme}://127.0.0.1:{PORT}/readyz"
            urllib.request.urlopen(url, timeout=1, context=ssl._create_unverified_context())
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
