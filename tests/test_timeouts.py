"""Waits that have a limit, by a clock that the test turns."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from portrait.errors import SegmentationHangs
from portrait.sessions.watched_thread import WatchedThread
from portrait.transports.grpc.idle_timeout import Limit


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
    async with Limit(1.0) as limit:
        for _ in range(5):
            limit.begin()
            await later(0.9)


async def test_nothing_is_cut_where_nothing_is_waited_for(later: Callable[[float], Awaitable[None]]) -> None:
    async with Limit(1.0) as limit:
        await later(5.0)
        limit.begin()
        await later(0.5)
        limit.end()
        await later(5.0)


async def test_a_wait_is_cut_at_its_limit_whenever_it_began(later: Callable[[float], Awaitable[None]]) -> None:
    async def wait() -> None:
        async with Limit(1.0) as limit:
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
        async with Limit(60.0) as limit:
            limit.begin()
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_process_that_stood_still_takes_no_thread_for_hanging(
    later: Callable[[float], Awaitable[None]],
) -> None:
    told: list[SegmentationHangs] = []
    gate = threading.Event()
    thread = WatchedThread("waits", 1.0, told.append)
    await later(0.0)
    for _ in range(3):  # a timer that has looked at one call says nothing of the next
        call = asyncio.create_task(thread.run(gate.wait, 30))
        await later(30.0)
        assert not call.done()
        gate.set()
        assert await call
        gate.clear()
    assert not told
    await thread.close(lambda: None)


async def test_a_thread_is_given_up_after_both_halves_of_its_patience(
    later: Callable[[float], Awaitable[None]],
) -> None:
    told: list[SegmentationHangs] = []
    gate = threading.Event()
    thread = WatchedThread("waits", 1.0, told.append)
    await later(0.0)
    await thread.run(int)
    await later(0.3)
    call = asyncio.create_task(thread.run(gate.wait, 30))
    await later(0.3)
    await later(0.6)
    assert not call.done()
    await later(0.6)
    with pytest.raises(SegmentationHangs, match="gave nothing for 1 s"):
        await call
    assert len(told) == 1
    gate.set()
    await thread.close(lambda: None)
