"""Waits that have a limit, by a clock that the test turns."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from portrait.errors import SegmentationHangs
from portrait.sessions.watched_thread import CHECKS, WatchedThread
from portrait.transports.grpc.stream import IdleTimeout


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Awaitable[None]]:
    """Lets so many seconds of the loop's clock pass at once, and whatever is due happen."""
    passed = 0.0

    async def turn(seconds: float) -> None:
        nonlocal passed
        loop = asyncio.get_running_loop()
        if not passed:
            began = loop.time()
            monkeypatch.setattr(loop, "time", lambda: began + passed)
        passed += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    return turn


async def test_a_wait_that_begins_anew_in_time_has_no_end(later: Callable[[float], Awaitable[None]]) -> None:
    async with IdleTimeout(1.0) as limit:
        for _ in range(5):
            limit.begin()
            await later(0.9)


async def test_nothing_is_cut_where_nothing_is_waited_for(later: Callable[[float], Awaitable[None]]) -> None:
    async with IdleTimeout(1.0) as limit:
        await later(5.0)
        limit.begin()
        await later(0.5)
        limit.end()
        await later(5.0)


async def test_a_wait_is_cut_at_its_limit_whenever_it_began(later: Callable[[float], Awaitable[None]]) -> None:
    async def wait() -> None:
        async with IdleTimeout(1.0) as limit:
            await later(0.7)
            limit.begin()
            await later(0.9)
            still_waiting.set()
            await later(0.2)
            await asyncio.sleep(60)

    still_waiting = asyncio.Event()
    with pytest.raises(TimeoutError):
        await wait()
    assert still_waiting.is_set()


async def test_an_end_of_the_task_itself_is_no_end_of_a_wait() -> None:
    async def wait() -> None:
        async with IdleTimeout(60.0) as limit:
            limit.begin()
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Hanging:
    """A watched block of a thread that ends when its gate opens."""

    def __init__(self, thread: WatchedThread) -> None:
        self._thread, self.entered, self.gate = thread, threading.Event(), threading.Event()

    def __call__(self) -> bool:
        with self._thread.watched():
            self.entered.set()
            return self.gate.wait(30)


async def checks(later: Callable[[float], Awaitable[None]], count: int) -> None:
    """As many of the watchdog's checks, at a timeout of 1 s."""
    for _ in range(count):
        await later(1.0 / CHECKS)


async def test_a_process_that_stood_still_takes_no_thread_for_hanging(
    later: Callable[[float], Awaitable[None]],
) -> None:
    thread = WatchedThread("waits", 1.0)
    await later(0.0)
    for _ in range(3):  # checks of one call say nothing about the next
        hanging = Hanging(thread)
        call = asyncio.create_task(thread.run(hanging))
        await asyncio.to_thread(hanging.entered.wait)
        await checks(later, CHECKS - 1)
        await later(30.0)
        assert not call.done()
        hanging.gate.set()
        assert await call
    await thread.close(lambda: None)


async def test_a_thread_is_abandoned_after_its_timeout(later: Callable[[float], Awaitable[None]]) -> None:
    thread = WatchedThread("waits", 1.0)
    hanging = Hanging(thread)
    await later(0.0)
    await thread.run(int)
    await later(0.1)
    call = asyncio.create_task(thread.run(hanging))
    await asyncio.to_thread(hanging.entered.wait)
    await checks(later, CHECKS)
    assert not call.done()
    await checks(later, 1)
    with pytest.raises(SegmentationHangs, match="gave nothing for 1 s"):
        await call
    with pytest.raises(SegmentationHangs, match="abandoned"):
        await thread.run(int)
    hanging.gate.set()
    await thread.close(lambda: None)


async def test_what_is_not_watched_may_take_any_time(later: Callable[[float], Awaitable[None]]) -> None:
    begun, gate = threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return gate.wait(30)

    thread = WatchedThread("waits", 1.0)
    await later(0.0)
    call = asyncio.create_task(thread.run(wait))
    await asyncio.to_thread(begun.wait)  # a call that is not begun is watched
    await checks(later, 10 * CHECKS)
    assert not call.done()
    gate.set()
    assert await call
    await thread.close(lambda: None)
