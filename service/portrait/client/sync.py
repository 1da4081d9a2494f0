"""SyncClient: the client for programs without asyncio."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, TypeVar, Unpack

from portrait.client.client import Client
from portrait.client.values import Array, OutputFields, Picture, Reply, Tls
from portrait.v1 import segmentation_pb2 as pb

T = TypeVar("T")


class SyncClient:
    """`Client` on a thread of its own: frames travel while the caller works on a reply. See there for what it promises.

    One thread may use it at a time.
    """

    def __init__(self, *targets: str, token: str | None = None, tls: Tls | None = None) -> None:
        self._client = Client(*targets, token=token, tls=tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="portrait-client", daemon=True)

    def __enter__(self) -> "SyncClient":
        """Start the thread and open the connection."""
        self._thread.start()
        self._run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection and end the thread."""
        self._run(self._client.__aexit__())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def models(self, *, timeout: float | None = None) -> list[pb.Model]:
        """The models a stream may ask for."""
        return self._run(self._client.models(timeout=timeout))

    def segment(
        self,
        frame: Picture | Array,
        *,
        model: str = "",
        timeout: float | None = None,
        **output: Unpack[OutputFields],
    ) -> Reply:
        """One picture, or pixels (H, W, 3) uint8 RGB."""
        return self._run(self._client.segment(frame, model=model, timeout=timeout, **output))

    def stream(
        self,
        frames: Iterable[Picture | Array],
        *,
        model: str = "",
        every_frame: bool = False,
        reconnect_seconds: float = 10.0,
        reply_seconds: float = 10.0,
        **output: Unpack[OutputFields],
    ) -> Iterator[Reply]:
        """Send frames and give the replies as they come. The source may block: it is asked on a thread of its own."""
        replies = self._client.stream(
            _threaded(frames),
            model=model,
            every_frame=every_frame,
            reconnect_seconds=reconnect_seconds,
            reply_seconds=reply_seconds,
            **output,
        )
        try:
            while (reply := self._run(_next(replies))) is not None:
                yield reply
        finally:
            self._run(_close(replies))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def _threaded(frames: Iterable[Picture | Array]) -> AsyncIterator[Picture | Array]:
    iterator = iter(frames)
    while (frame := await asyncio.to_thread(next, iterator, None)) is not None:
        yield frame


async def _next(replies: AsyncIterator[Reply]) -> Reply | None:
    return await anext(replies, None)


async def _close(replies: Any) -> None:
    await replies.aclose()
