"""SyncClient: the client for programs without asyncio."""

import asyncio
import threading
from asyncio import Runner
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar, Unpack

from portrait_client.client import MOST_IN_FLIGHT, Client
from portrait_client.types import Array, OutputFields, Picture, Reply, Tls
from portrait_client.v1 import segmentation_pb2 as pb

T = TypeVar("T")


class SyncClient:
    """`Client` on a thread of its own: frames are sent while the caller works on a reply. `Client` documents the calls.

    To be used by one thread at a time.
    """

    def __init__(self, *targets: str, token: str | None = None, tls: Tls | None = None) -> None:
        self._client = Client(*targets, token=token, tls=tls)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "SyncClient":
        """Start the thread and open the connection."""
        with ExitStack() as stack:
            self._loop = stack.enter_context(_loop_on_a_thread())
            stack.callback(self._close)
            self._run(self._client.__aenter__())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection and end the thread, and with it the streams that are still open."""
        self._stack.close()

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
        max_in_flight: int = MOST_IN_FLIGHT,
        reconnect_seconds: float = 10.0,
        reply_seconds: float = 10.0,
        **output: Unpack[OutputFields],
    ) -> Iterator[Reply]:
        """Send frames and give the replies as they come.

        The source may block: it runs on a thread of its own, which is abandoned if it never returns.
        """
        replies = self._client.stream(
            _threaded(frames),
            model=model,
            every_frame=every_frame,
            max_in_flight=max_in_flight,
            reconnect_seconds=reconnect_seconds,
            reply_seconds=reply_seconds,
            **output,
        )
        yield from self._given(replies)

    def watch(
        self,
        stream: str,
        *,
        composite: bool = False,
        format: "pb.PictureFormat.ValueType" = pb.PICTURE_FORMAT_UNSPECIFIED,  # noqa: A002  as in OutputFields
    ) -> Iterator[Reply]:
        """Give the results of a named stream as they come: masks, or composed pictures."""
        yield from self._given(self._client.watch(stream, composite=composite, format=format))

    def _given(self, replies: AsyncGenerator[Reply, None]) -> Iterator[Reply]:
        steps = _Replies(replies)
        try:
            while (reply := self._run(steps.next())) is not None:
                yield reply
        finally:
            if self._loop is not None:
                self._run(steps.end())

    def _close(self) -> None:
        self._run(self._client.__aexit__())
        self._loop = None

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the client is not open; use `with SyncClient(...)`")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class _Replies:
    """The replies, one by one. Its methods run on the event loop."""

    def __init__(self, replies: AsyncGenerator[Reply, None]) -> None:
        self._replies = replies
        self._step: asyncio.Task[Any] | None = None

    async def next(self) -> Reply | None:
        """The next reply; None after the last."""
        self._step = asyncio.current_task()
        return await anext(self._replies, None)

    async def end(self) -> None:
        """Close the stream, also while `next` waits, as an interrupt from the keyboard leaves it."""
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step})
        await self._replies.aclose()


@contextmanager
def _loop_on_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop for the length of the block; what still runs on it then is cancelled."""
    started: Future[asyncio.AbstractEventLoop] = Future()

    def live() -> None:
        with Runner() as runner:
            started.set_result(runner.get_loop())
            runner.get_loop().run_forever()

    thread = threading.Thread(target=live, name="portrait-client", daemon=True)
    thread.start()
    loop = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _threaded(frames: Iterable[Picture | Array]) -> AsyncIterator[Picture]:
    """The frames, taken from their iterator on a thread, one at a time.

    A daemon thread, not one of the loop's executor: the end of the program does not wait for a source that blocks.
    """
    wanted: SimpleQueue[Future[Picture | None] | None] = SimpleQueue()
    asking = threading.Thread(target=_ask, args=(iter(frames), wanted), name="portrait-client-source", daemon=True)
    asking.start()
    try:
        while True:
            asked: Future[Picture | None] = Future()
            wanted.put(asked)
            if (picture := await asyncio.wrap_future(asked)) is None:
                return
            yield picture
    finally:
        wanted.put(None)


def _ask(frames: Iterator[Picture | Array], wanted: "SimpleQueue[Future[Picture | None] | None]") -> None:
    """Set each future to the next frame, to None after the last; None in place of a future ends the thread."""
    pictures = map(Picture.of, frames)
    while (asked := wanted.get()) is not None:
        if not asked.set_running_or_notify_cancel():
            continue
        try:
            asked.set_result(next(pictures, None))
        except BaseException as error:
            asked.set_exception(error)
