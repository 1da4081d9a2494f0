"""Ids that name the pod of a session: its address with a signature, after the id as the worker made it.

    0-Vb1zK3sXo2pQ8mRt5uYw7aBc.CgAAAn3wq1Z0cE2vYH4pJ6sTdFg
    └ worker, random bits       └ address and signature, in base64

Without the cluster's secret no client can make a pod call an address, and an address that is signed needs no look-up.
"""

import base64
import binascii
import hmac
import ipaddress

from portrait.cluster.trust import derive

SIGNATURE_BYTES = 16

MARK = "."


class PodIds:
    """Signs and reads ids with the cluster's secret."""

    def __init__(self, secret: str, address: str) -> None:
        self._key = derive(secret, "ids")
        self._own = ipaddress.ip_address(address).packed

    def sign(self, local: str) -> str:
        """The id under which every pod finds what this one calls `local`."""
        text = base64.urlsafe_b64encode(self._own + self._signature(local, self._own)).decode().rstrip("=")
        return f"{local}{MARK}{text}"

    def address(self, name: str) -> str | None:
        """The address of the pod that made an id; None for one that no pod of the cluster made."""
        local, mark, text = name.partition(MARK)
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):  # such as one that is not ASCII
            return None
        packed, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        if not mark or len(packed) not in (4, 16) or not local.isascii():
            return None
        genuine = hmac.compare_digest(signature, self._signature(local, packed))
        return str(ipaddress.ip_address(packed)) if genuine else None

    def _signature(self, local: str, packed: bytes) -> bytes:
        return hmac.digest(self._key, packed + local.encode(), "sha256")[:SIGNATURE_BYTES]
