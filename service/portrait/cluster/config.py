"""ClusterConfig: which pods are one service, as the operator's settings say."""

import ipaddress
from dataclasses import dataclass

from portrait.errors import BadSettings
from portrait.settings import Settings

LEAST_SECRET = 32
"""Characters of the shared secret: a client that connects can test guesses of it, so it must not be guessable."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The settings of a pod of several."""

    address: str
    """The pod's own IP address, at which the others reach it."""
    port: int
    """TCP port of HTTP between pods, the same on all; gRPC between pods has the next."""
    peers: tuple[str, ...]
    """Names and addresses that lead to all pods."""
    secret: str

    @property
    def grpc_port(self) -> int:
        """TCP port of gRPC between pods."""
        return self.port + 1

    @classmethod
    def of(cls, settings: Settings) -> "ClusterConfig | None":
        """The configuration that these settings ask for; None for a pod that is alone.

        Raises:
            BadSettings: a part of it is missing, or cannot be used. The secret is not repeated.
        """
        secret = settings.cluster_secret.get_secret_value()
        given = {"PORTRAIT_CLUSTER_PEERS": settings.cluster_peer_names, "PORTRAIT_CLUSTER_ADDRESS":
                 settings.cluster_address, "PORTRAIT_CLUSTER_SECRET": secret}  # fmt: skip
        if not any(given.values()):
            return None
        if missing := [name for name, value in given.items() if not value]:
            raise BadSettings(f"{missing[0]}: got nothing, expected {', '.join(given)} together or none of them")
        if len(secret) < LEAST_SECRET:
            raise BadSettings(
                f"PORTRAIT_CLUSTER_SECRET: got {len(secret)} characters, expected at least {LEAST_SECRET} random ones"
            )
        if ipaddress.ip_address(settings.cluster_address).is_unspecified:
            raise BadSettings(
                f"PORTRAIT_CLUSTER_ADDRESS={settings.cluster_address!r}: expected the address of this pod alone"
            )
        return cls(plain_address(settings.cluster_address), settings.cluster_port, settings.cluster_peer_names, secret)


def plain_address(text: str) -> str:
    """An IP address in the one form in which addresses are compared, without the interface that may stand beside it."""
    return str(ipaddress.ip_address(text.partition("%")[0]))
