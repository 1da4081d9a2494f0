"""PodProxy: several pods behind any balancer, each of which answers for the sessions of all.

Each pod also listens at its own address for the others alone (TLS with certificates of the cluster). What arrives there
is answered by this pod or refused, and never passed on to a further one.
"""

import asyncio
from functools import partial

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from portrait.cluster.cluster import STREAMS_PATH, Cluster
from portrait.errors import NoSuchSession, PodLost, StreamTaken
from portrait.logs import tell_failure
from portrait.metrics import Metrics
from portrait.sessions.broadcasts import RETRY_AFTER, Broadcasts
from portrait.sessions.presence_feed import Listener
from portrait.transports.http.events import RELAYS
from portrait.transports.http.forwarding import pass_on, relay_events, target_of

PUBLISHING, VIEWING = "/whip/{stream}", ("/whep/{stream}", "/whep/{stream}/{output}")
"""Paths where POST names a stream that another pod may have."""

PEERS_SECONDS = 2.0
"""How often a listener to events looks for pods that have come or gone."""

AGAIN_SECONDS = 1.0
"""After which a client may ask for a session of a pod that cannot be reached."""


class PodProxy:
    """Forwards requests to the other pods, and tells them which streams this one publishes."""

    def __init__(self, cluster: Cluster, broadcasts: Broadcasts, metrics: Metrics) -> None:
        self.cluster = cluster
        self._broadcasts, self._metrics = broadcasts, metrics

    @property
    def routes(self) -> list[web.RouteDef]:
        """What only other pods may ask."""
        return [web.get(STREAMS_PATH, self._tell_stream)]

    @property
    def middleware(self) -> Middleware:
        """A middleware that has another pod answer what concerns its sessions and streams."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            known, resource = request.match_info, request.match_info.route.resource
            path = resource.canonical if resource is not None else ""
            if "id" in known:
                address = self.cluster.ids.address(known["id"])
                if address is not None and address != self.cluster.config.address:
                    return await self._to_session(request, address)
            elif request.method == "POST" and path == PUBLISHING:
                await self._check_free(known["stream"])
            elif request.method == "POST" and path in VIEWING and not self._broadcasts.knows(known["stream"]):
                return await self._to_stream(request, known["stream"], handler)
            elif (request.method, request.path) == ("GET", "/v1/events"):
                request[RELAYS] = [*request.get(RELAYS, ()), partial(self._relay, request.query.get("stream"))]
            return await handler(request)

        return answer

    async def _to_session(self, request: web.Request, address: str) -> web.StreamResponse:
        """Have the pod answer that made the id.

        Raises:
            NoSuchSession: it is no pod of the service any more.
            PodLost: it is one, and cannot be reached.
        """
        try:
            return await self._pass_on(request, address, "session")
        except aiohttp.ClientError as error:
            if address in await self.cluster.peers.addresses():
                raise PodLost("the pod that has this session cannot be reached; try again", AGAIN_SECONDS) from error
            raise NoSuchSession("no session has this id, or it has ended") from error

    async def _to_stream(self, request: web.Request, name: str, handler: Handler) -> web.StreamResponse:
        """Have the pod answer that publishes a stream, or this one say that none does.

        Raises:
            PodLost: it cannot be reached.
        """
        streams = self.cluster.streams
        for _ in range(2):
            found = await streams.find(name)
            if found is None:
                return await handler(request)
            try:
                response = await self._pass_on(request, found.address, "stream")
            except aiohttp.ClientConnectorError:
                # Nothing of the body has been read: another pod may publish the stream by now.
                streams.forget(name, found.address)
                continue
            except aiohttp.ClientError:
                streams.forget(name, found.address)
                break
            if response.status >= 400:
                streams.forget(name)
            return response
        raise PodLost("the pod that publishes this stream cannot be reached; try again", AGAIN_SECONDS)

    async def _pass_on(self, request: web.Request, address: str, kind: str) -> web.StreamResponse:
        cluster = self.cluster
        try:
            response = await pass_on(request, cluster.forwarder, cluster.url(address, target_of(request)))
        except aiohttp.ClientError:
            self._metrics.forwarded(kind, "failed")
            raise
        self._metrics.forwarded(kind, "answered")
        return response

    async def _check_free(self, name: str) -> None:
        """Refuse a name that another pod publishes and does not give up.

        Two that begin at the same moment on two pods can both succeed: the pods agree on nothing.

        Raises:
            StreamTaken: it is published already.
        """
        if self._broadcasts.knows(name):
            return  # refused here, or handed over by a worker that drains
        self.cluster.streams.forget(name)
        found = await self.cluster.streams.find(name)
        if found is not None and not found.draining:
            raise StreamTaken(f"{name!r} is published already", RETRY_AFTER)

    async def _tell_stream(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        if self._broadcasts.publisher(name) is None:
            raise web.HTTPNotFound(text="this pod publishes no such stream")
        return web.json_response({"draining": self._broadcasts.is_draining(name)})

    async def _relay(self, stream: str | None, listener: Listener) -> None:
        """Put the events of every other pod into a listener, until cancelled; pods come and go."""
        cluster = self.cluster
        relays: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                addresses = await cluster.peers.addresses()
                for address in relays.keys() - set(addresses):
                    relays.pop(address).cancel()
                for address in set(addresses) - relays.keys():
                    relay = relay_events(cluster.client, cluster.url(address, "/v1/events"), stream, listener)
                    relays[address] = asyncio.create_task(relay, name="events-pod-relay")
                    relays[address].add_done_callback(tell_failure)
                await asyncio.sleep(PEERS_SECONDS)
        finally:
            for each in relays.values():
                each.cancel()
            await asyncio.gather(*relays.values(), return_exceptions=True)
