"""The slot for the newest item."""

import asyncio

import pytest

from portrait.sessions.newest_slot import Closed, NewestSlot


async def test_newest_wins_and_losses_are_counted() -> None:
    slot: NewestSlot[int] = NewestSlot()
    assert slot.put(1)
    assert not slot.put(2)
    assert not slot.put(3)
    assert await slot.get() == 3
    assert slot.dropped == 2


async def test_get_waits_for_an_item() -> None:
    slot: NewestSlot[int] = NewestSlot()
    getter = asyncio.create_task(slot.get())
    await asyncio.sleep(0)
    assert not getter.done()
    slot.put(7)
    assert await getter == 7


async def test_cancelled_get_loses_nothing() -> None:
    slot: NewestSlot[int] = NewestSlot()
    getter = asyncio.create_task(slot.get())
    await asyncio.sleep(0)
    slot.put(7)
    getter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getter
    assert await slot.get() == 7


async def test_close_ends_every_wait_after_the_last_item() -> None:
    slot: NewestSlot[int] = NewestSlot()
    slot.put(1)
    slot.close()
    slot.close()
    assert await slot.get() == 1
    with pytest.raises(Closed):
        await slot.get()
    with pytest.raises(Closed):
        slot.put(2)


async def test_wait_empty_holds_a_sender_that_may_lose_nothing() -> None:
    slot: NewestSlot[int] = NewestSlot()
    slot.put(1)
    waiter = asyncio.create_task(slot.wait_empty())
    await asyncio.sleep(0)
    assert not waiter.done()
    await slot.get()
    await waiter
    assert slot.dropped == 0
