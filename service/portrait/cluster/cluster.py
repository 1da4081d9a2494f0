"""Cluster: the other pods as this one sees them, and how it calls them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from portrait.cluster.config import ClusterConfig
from portrait.cluster.peers import Peers
from portrait.cluster.pod_ids import PodIds
from portrait.cluster.streams import Streams
from portrait.cluster.trust import ClusterTls

CONNECT_SECONDS = 1.0
"""How long connecting to a pod may take; an address that is gone from the network does not answer."""

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
    """Calls other pods, which it knows by their certificates."""

    def url(self, address: str, path: str) -> URL:
        """Where another pod answers; `path` as it came in a request, encoded."""
        return pod_url(self.config, address).join(URL(path, encoded=True))


def pod_url(config: ClusterConfig, address: str) -> URL:
    """Where the pod of an address answers the others."""
    return URL.build(scheme="https", host=address, port=config.port)


@asynccontextmanager
async def open_cluster(config: ClusterConfig) -> AsyncIterator[Cluster]:
    """The cluster for the length of the block."""
    tls, peers = ClusterTls.of(config.secret, config.address), Peers(config)
    client = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls.client_context(), limit=0, use_dns_cache=False),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )

    async def ask(address: str, name: str) -> bool | None:
        url = pod_url(config, address).with_path(STREAMS_PATH).with_query(name=name)
        async with client.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                return None
            return bool((await answer.json())["draining"])

    streams = Streams(peers, ask)
    try:
        yield Cluster(config, tls, PodIds(config.secret, config.address), peers, streams, client)
    finally:
        await streams.close()
        await peers.close()
        await client.close()
