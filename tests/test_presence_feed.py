"""Events of presence: bounded for every listener, whether it listens or not."""

import asyncio
from asyncio import timeout
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from portrait.core.presence import Box, Presence
from portrait.errors import TooManyListeners
from portrait.metrics import Metrics
from portrait.security import Security
from portrait.sessions.presence_feed import MOST_WAITING, PresenceEvent, PresenceFeed
from portrait.transports.http.events import EventRoutes
from portrait.transports.http.forwarding import relay_events
from portrait.transports.http.worker_proxy import EVENTS, open_worker_proxy, serve_other_workers
from portrait.transports.notify.config import Broker
from portrait.transports.notify.mqtt import MOST_STREAMS, Mqtt
from portrait.workers.shared_state import SharedState


def event(session: str, present: bool = True, stream: str | None = "door") -> PresenceEvent:
    box = Box(0.25, 0.0, 0.5, 1.0) if present else None
    return PresenceEvent(session, stream, "webrtc", Presence(present, 0.25 * present, box), 1_000_000_000.125)


def counted(metrics: Metrics, result: str) -> float:
    return metrics.registry.get_sample_value("portrait_events_total", {"sink": "sse", "result": result}) or 0.0


async def test_a_listener_learns_the_present_state_and_then_every_change() -> None:
    feed = PresenceFeed(Metrics())
    feed.tell(event("a"))
    feed.tell(event("b", stream="gate"))
    feed.tell(event("c").as_ended(0.0))
    with feed.listen("sse") as all_streams, feed.listen("sse", "gate") as gate:
        assert {(await all_streams.get()).session for _ in range(2)} == {"a", "b"}  # type: ignore[union-attr]
        assert all_streams.empty
        feed.tell(event("a", False))
        assert await all_streams.get() == event("a", False)
        assert await gate.get() == event("b", stream="gate")
        assert gate.empty
        assert feed.wanted("anything")
    assert not feed.wanted("gate")


async def test_a_listener_that_takes_nothing_holds_the_newest_event_of_each_stream_up_to_a_bound() -> None:
    metrics = Metrics()
    feed = PresenceFeed(metrics)
    with feed.listen("sse") as listener:
        for number in range(10_000):
            feed.tell(event("a", bool(number % 2)))
        for number in range(MOST_WAITING):
            feed.tell(event(f"s{number}"))
        assert counted(metrics, "dropped") == 10_000  # all but one of a, and that one for the last of the others
        taken = []
        while not listener.empty:
            taken.append(await listener.get())
        assert [each.session for each in taken if each] == [f"s{number}" for number in range(MOST_WAITING)]


async def test_a_broker_is_told_of_a_bounded_number_of_names() -> None:
    """Clients that publish choose them, and each stays at the broker."""
    metrics, published = Metrics(), list[str]()

    async def publish(topic: str, payload: str, **options: Any) -> None:
        published.append(topic)

    feed = PresenceFeed(metrics)
    told = Mqtt(Broker("127.0.0.1", 1883, False, None, None, "portrait", ""), feed, 0)
    with feed.listen("mqtt") as listener:
        for number in range(MOST_STREAMS + 1):
            await told._take(SimpleNamespace(publish=publish), event("a", stream=f"s{number}"), listener)  # type: ignore[arg-type]
    assert len({topic.split("/")[1] for topic in published}) == MOST_STREAMS
    assert metrics.registry.get_sample_value("portrait_events_total", {"sink": "mqtt", "result": "dropped"}) == 1


async def test_clients_are_bounded_and_a_closed_listener_ends() -> None:
    feed = PresenceFeed(Metrics(), max_listeners=1)
    with feed.listen("webhook"), feed.listen("sse", limited=True) as listener:
        with pytest.raises(TooManyListeners, match="1 of 1 listeners are connected"), feed.listen("sse", limited=True):
            pass
        waiting = asyncio.create_task(listener.get())
        await asyncio.sleep(0)
        listener.close()
        assert await waiting is None


@pytest.mark.parametrize("sent", [event("a"), event("b", False, None), event("c").as_ended(5.0)])
def test_an_event_survives_the_way_to_another_worker(sent: PresenceEvent) -> None:
    assert PresenceEvent.of_document(sent.document()) == sent


async def test_a_worker_that_is_lost_takes_its_streams_along(tmp_path: Path) -> None:
    own, others = PresenceFeed(Metrics()), PresenceFeed(Metrics())
    shared = SharedState(tmp_path, 0, 2)
    async with timeout(60), open_worker_proxy(shared) as proxy:
        with own.listen("sse") as listener:
            routes = EventRoutes(others, Security.allow_all()).routes
            async with serve_other_workers(shared.socket(1), routes, [], 1000):
                others.tell(event("a"))
                relaying = asyncio.create_task(relay_events(proxy._clients[1], EVENTS, None, listener))
                assert await listener.get() == event("a")
            lost = await listener.get()
            relaying.cancel()
    shared.close()
    assert lost is not None
    assert (lost.session, lost.ended, lost.presence.present) == ("a", True, False)


@pytest.mark.parametrize(
    "packet",
    [
        bytes([0x30, 0xFF, 0xFF, 0xFF, 0x7F]) + b"\0\1a",
        bytes([0x30, 0x83, 0x08]) + b"\0\1a" + bytes(1024),
        b"\x40\xff\xff\x7f",
    ],
    ids=["a message of 256 MB", "messages", "an acknowledgement of 2 MB"],
)
async def test_a_broker_that_sends_more_than_acknowledgements_is_left_before_it_is_read(
    packet: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 256 MB cost 1.4 GB, and many small ones held the event loop up."""
    for name in ("FIRST_WAIT", "LONGEST_WAIT"):
        monkeypatch.setattr(f"portrait.transports.notify.mqtt.{name}", 0.1)
    sent, left = list[int](), asyncio.Queue[int]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(0)
        with suppress(ConnectionError):
            await reader.read(1024)
            writer.write(bytes([0x20, 2, 0, 0]) + packet)  # the connection is accepted
            while sent[-1] < 64 * 2**20:
                writer.write(packet * 64 if len(packet) > 100 else bytes(2**16))
                await writer.drain()
                sent[-1] += 2**16
        left.put_nowait(sent[-1])
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = Mqtt(Broker("127.0.0.1", port, False, None, None, "portrait", ""), PresenceFeed(Metrics()), 0)
        running = asyncio.create_task(told.run())
        async with timeout(30):
            assert [await left.get() < 32 * 2**20 for _ in range(2)] == [True, True]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
