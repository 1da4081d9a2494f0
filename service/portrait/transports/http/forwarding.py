"""What the workers of a pod, and the pods of a service, do for each other: pass a request on, and relay events."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from yarl import URL

from portrait.sessions.presence_feed import Listener, PresenceEvent

DATA = b"data:"
"""Begins a line of Server-Sent Events that carries an event."""

HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade",
}  # fmt: skip
"""Headers that are not forwarded (RFC 9110 section 7.6.1)."""

SURROGATES = re.compile("[\ud800-\udfff]")
"""What stands for bytes that are not UTF-8 in a header's value."""

REMOTE = "X-Portrait-Remote"
"""Carries the client's address to who answers. Only the servers for other workers and other pods trust it."""

INTERNAL = web.RequestKey("internal", bool)
"""Whether another worker or pod asks, and no client."""

DECODED = {"br", "deflate", "gzip", "zstd"}
"""Content codings of a request that aiohttp has undone when its body is forwarded."""

RECONNECT_SECONDS = 1.0
"""How long a relay waits before it connects again."""


def target_of(request: web.Request) -> str:
    """Path and query of a request as they came, without the host that a target may name (RFC 9112 section 3.2.2)."""
    return request.rel_url.raw_path_qs


async def pass_on(request: web.Request, client: aiohttp.ClientSession, url: str | URL) -> web.StreamResponse:
    """Forward a request, and its answer, piece by piece: neither is held in memory.

    Raises:
        aiohttp.ClientError: there is no answer. One that breaks off is cut for the client as well.
        web.RequestPayloadError, web.HTTPRequestTimeout: the body cannot be read, or takes too long.
    """
    body = _Body(request)
    headers = forwarded(request.headers)
    if headers.get("Content-Encoding", "").lower() in DECODED:
        del headers["Content-Encoding"]
        headers.pop("Content-Length", None)
    headers[REMOTE] = request.remote or ""
    answer: web.StreamResponse | None = None
    try:
        async with client.request(
            request.method,
            url,
            headers=headers,
            data=body.read() if request.body_exists else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as came:
            answer = web.StreamResponse(status=came.status, reason=came.reason, headers=forwarded(came.headers))
            await answer.prepare(request)
            async for chunk in came.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer
    except aiohttp.ClientError:
        if answer is None or not answer.prepared:
            if body.failure is not None:
                raise body.failure from None
            raise
        if request.transport is not None:
            request.transport.abort()  # part of the answer has been sent: a problem would look like its rest
        return answer


class _Body:
    """The body of a request that is forwarded, and why it could not be read: the client of aiohttp does not tell."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.failure: Exception | None = None

    async def read(self) -> AsyncIterator[bytes]:
        """Its pieces as they come."""
        try:
            async for chunk in self._request.content.iter_any():
                yield chunk
        except Exception as error:
            self.failure = error
            raise


def forwarded(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that are forwarded, without those that are not UTF-8, which aiohttp could not send."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    dropped = HOP_BY_HOP | named | {REMOTE.lower()}
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in dropped and not SURROGATES.search(value)
    )


@web.middleware
async def use_forwarded_address(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give requests the client's address, as the one who forwards has seen it."""
    cloned = request.clone(remote=request.headers.get(REMOTE, ""))
    cloned[INTERNAL] = True
    return await handler(cloned)


async def relay_events(client: aiohttp.ClientSession, url: str | URL, stream: str | None, listener: Listener) -> None:
    """Put another's events into a listener, until cancelled; when it is lost, the ends of its streams."""
    query = {} if stream is None else {"stream": stream}
    while True:
        known: dict[str, PresenceEvent] = {}
        try:
            with suppress(aiohttp.ClientError, ValueError, KeyError, TypeError):
                async with client.get(url, params=query) as answer:
                    async for line in answer.content:
                        if line.startswith(DATA):
                            event = PresenceEvent.of_document(json.loads(line.removeprefix(DATA)))
                            known[event.session] = event
                            listener.put(event)
        finally:
            for event in known.values():
                if not event.ended:
                    listener.put(event.as_ended(time.time()))
        await asyncio.sleep(RECONNECT_SECONDS)
