"""The image's health check: whether the service says that it is ready.

It asks the container's own loopback, by TLS where the service speaks it: a variable may have asked for that, a flag or
the settings file. The certificate is not looked at, since an operator's own need not be the loopback's.
"""

import contextlib
import http.client
import os
import ssl
import sys
import urllib.request

PORT = os.environ.get("PORTRAIT_HTTP_PORT", "8080")


def main() -> int:
    """Ask; the exit status: 0 ready, 1 not."""
    for scheme in ("http", "https"):
        # To plain HTTP a TLS port answers with an alert, which is no HTTP, or not at all.
        with contextlib.suppress(OSError, http.client.HTTPException):
            url = f"{scheme}://127.0.0.1:{PORT}/readyz"
            urllib.request.urlopen(url, timeout=1, context=ssl._create_unverified_context())
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
