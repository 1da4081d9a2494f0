"""Waits that have a limit, by a clock that the test turns."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from portrait.errors import SegmentationHangs
from portrait.python310 import timeout
from portrait.sessions.watched_thread import OwnThread
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
    thread = OwnThread("waits", 1.0, told.append)
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
    thread = OwnThread("waits", 1.0, told.append)
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


async def test_a_block_is_cut_when_its_time_is_over(later: Callable[[float], Awaitable[None]]) -> None:
    """Of every Python: the package brings its own `timeout` for 3.10."""
    cut = asyncio.Event()

    async def waiting() -> None:
        try:
            async with timeout(1.0):
                await asyncio.Event().wait()
        except TimeoutError:
            cut.set()

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)  # it has begun
    await later(0.9)
    assert not cut.is_set()
    await later(0.2)
    assert cut.is_set()
    await task


async def test_a_cancellation_is_no_timeout_and_another_error_stays_what_it_is(
    later: Callable[[float], Awaitable[None]],
) -> None:
    async def waiting() -> None:
        async with timeout(1.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    await later(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ZeroDivisionError):
        async with timeout(1.0):
            raise ZeroDivisionError
    await later(2.0)  # nothing of either is left to come


async def test_a_timeout_can_come_at_another_time_or_not_at_all(later: Callable[[float], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    async with timeout(1.0) as limit:
        await later(0.9)
        limit.reschedule(loop.time() + 1.0)
        await later(0.9)
        limit.reschedule(None)
        await later(100.0)

    async def waiting() -> None:
        async with timeout(None) as limit:
            loop.call_soon(limit.reschedule, loop.time())
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await waiting()
