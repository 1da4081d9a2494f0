"""The Python client's window: how many frames it leaves unanswered."""

import time
from collections.abc import AsyncIterator

import pytest

from portrait.client import Client
from portrait.image.frame import Frame, Mask
from portrait_client.flow_control import FlowControl
from tests.calls import fake_service
from tests.fakes import FakeModel, full_mask
from tests.people import Array, room
from tests.proxy import Proxy
from tests.timing import at_most


def test_a_window_grows_by_one_in_a_window_of_quick_replies() -> None:
    flow = FlowControl(2, 8)
    for _ in range(2):
        flow.replied(0.01, 0.005, 0)
    assert flow.window == 2
    flow.replied(0.01, 0.005, 0)
    assert flow.window == 3
    for _ in range(100):
        flow.replied(0.01, 0.005, 0)
    assert flow.window == 8


@pytest.mark.parametrize("reply", [(0.001, 0.001, 3), (0.1, 0.005, 0)], ids=["frames dropped", "waited behind others"])
def test_a_window_is_halved_once_for_one_moment(reply: tuple[float, float, int]) -> None:
    flow = FlowControl(8, 8)
    flow.replied(0.001, 0.005, 0)
    for _ in range(8):  # what was on its way already
        flow.replied(*reply)
    assert flow.window == 4
    for _ in range(40):
        flow.replied(*reply)
    assert flow.window == 1


def test_a_server_says_how_much_is_of_use() -> None:
    flow = FlowControl(2, 64)
    flow.limit(1)
    assert flow.window == 1


def test_no_server_makes_a_window_larger_than_its_client_wants() -> None:
    flow = FlowControl(1, 1)
    flow.limit(8)
    for _ in range(100):
        flow.replied(0.01, 0.005, 0)
    assert flow.window == 1


async def most_in_flight(client: Client, enough: int, frames: int) -> int:
    """Frames unanswered at once, at most; ends when it is `enough`, or after so many frames."""
    sent = answered = most = 0

    async def source() -> AsyncIterator[Array]:
        nonlocal sent, most
        while sent < frames and most < enough:
            sent += 1
            most = max(most, sent - answered)
            yield room(64, 48)

    async for _ in client.stream(source(), every_frame=True):
        answered += 1
    assert answered == sent
    return most


@pytest.mark.timing
async def test_a_long_link_gets_more_frames_in_flight_than_a_short_one() -> None:
    def steady(frame: Frame) -> Mask:
        time.sleep(0.004)
        return full_mask(frame)

    async with fake_service(FakeModel(steady)) as (near, _):
        port = int(near._targets[0].rpartition(":")[2])
        async with Proxy(port, 0.03) as wire, Client(f"127.0.0.1:{wire.port}") as far:
            assert await most_in_flight(far, enough=7, frames=2000) == 7
        at_most("frames in flight on a short link", await most_in_flight(near, enough=64, frames=100), 6)
