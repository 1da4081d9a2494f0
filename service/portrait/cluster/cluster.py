"""Cluster: the other pods as this one sees them, and how it calls them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp.connector import AddrInfoType
from yarl import URL

from portrait.cluster.config import ClusterConfig
from portrait.cluster.peers import Peers
from portrait.cluster.pod_ids import PodIds
from portrait.cluster.streams import Streams
from portrait.cluster.trust import ClusterTls

CONNECT_SECONDS = 1.0
"""How long connecting to a pod may take; an address that is gone from the network does not answer."""

SILENT_SECONDS = 2.0
"""How long a connected pod may acknowledge nothing. Otherwise a request to a pod that vanishes would wait for a quarter
of an hour."""

STREAMS_PATH = "/cluster/streams"
"""Where pods ask each other about a stream: ?name=NAME. Answered to other pods only."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The pods of a service. Opened by `open_cluster`."""

    config: ClusterConfig
    tls: ClusterTls
    ids: PodIds
    peers: Peers
    streams: Streams
    client: aiohttp.ClientSession
    """Asks other pods, which it knows by their certificates, over connections that are kept."""
    forwarder: aiohttp.ClientSession
    """The same, with a connection for each request: one that was kept may lead to a pod that has vanished."""

    def url(self, address: str, path: str) -> URL:
        """Where another pod answers; `path` begins with a slash and is encoded.

        Nothing in it can name another host, as a URL that is joined could.
        """
        return URL(str(pod_url(self.config, address)).rstrip("/") + path, encoded=True)


def pod_url(config: ClusterConfig, address: str) -> URL:
    """Where the pod of an address answers the others."""
    return URL.build(scheme="https", host=address, port=config.port)


def _open_client(tls: ClusterTls, *, keep: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        ssl=tls.client_context(), limit=0, use_dns_cache=False, force_close=not keep, socket_factory=_make_socket
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _make_socket(address: AddrInfoType) -> socket.socket:
    """A socket that notices within SILENT_SECONDS, when idle in some more, that the other side has vanished."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * SILENT_SECONDS))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    return made


@asynccontextmanager
async def open_cluster(config: ClusterConfig) -> AsyncIterator[Cluster]:
    """The cluster for the length of the block."""
    tls, peers = ClusterTls.of(config.secret, config.address), Peers(config)
    client, forwarder = _open_client(tls, keep=True), _open_client(tls, keep=False)

    async def ask(address: str, name: str) -> bool | None:
        url = pod_url(config, address).with_path(STREAMS_PATH).with_query(name=name)
        async with client.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                return None
            return bool((await answer.json())["draining"])

    streams = Streams(peers, ask)
    try:
        yield Cluster(config, tls, PodIds(config.secret, config.address), peers, streams, client, forwarder)
    finally:
        await streams.close()
        await peers.close()
        await client.close()
        await forwarder.close()
