"""Session descriptions and fragments that no client would send: never a 500, and nothing is left of them."""

import asyncio
import re
import time
from asyncio import timeout
from collections import Counter

import pytest

from portrait.errors import BadOffer
from portrait.sessions.registry import Sessions
from portrait.transports.webrtc import offer_limits as bounds
from portrait.transports.webrtc.connection import Connection
from portrait.transports.webrtc.session_description import Offer
from tests.conftest import udp_sockets
from tests.fakes import FakeModel, full_mask
from tests.mutations import mutated_bytes, mutated_lines, rounds
from tests.people import clip
from tests.rtc import SIZE, Camera, fake_service, viewer
from tests.targets import corpus

CORPUS = [data.decode().replace("\r\n", "\n").replace("\n", "\r\n") for data in corpus("offer")]
PATHS = ["/webrtc", "/whip/desk", "/whep/desk", "/whep/desk/mask"]
FRAGMENT = (
    "a=ice-ufrag:{ufrag}\r\na=ice-pwd:p\r\nm=video 9 RTP/AVP 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
)

pytestmark = pytest.mark.usefixtures("no_sockets_left", "any_rate")


async def emptied(sessions: Sessions) -> None:
    async with timeout(60):
        while sessions:
            await asyncio.sleep(0.01)


async def watch_turns(turns: list[float]) -> None:
    """CPU seconds that the loop's thread takes from one look to the next: not what a busy machine makes it wait."""
    while True:
        begun = time.thread_time()
        await asyncio.sleep(0.01)
        turns.append(time.thread_time() - begun)


async def test_no_offer_does_anything_but_be_answered_or_refused() -> None:
    told = Counter[int]()
    async with (
        fake_service(FakeModel(full_mask)) as (url, sessions),
        viewer(url, Camera(clip(*SIZE, 1))) as one,
    ):
        corpus = [*CORPUS, await one.offer()]
        sockets = len(udp_sockets())
        for dice in rounds(least=60):
            offer = mutated_lines(dice.choice(corpus), corpus, dice)
            if dice.random() < 0.1:
                offer = mutated_bytes(offer.encode(), dice).decode("latin-1")
            async with await one.post(offer, dice.choice(PATHS)) as response:
                text = await response.text()
                assert response.status in (201, 400, 409, 422, 503), (response.status, text, offer)
                told[response.status] += 1
            if response.status == 201:
                async with one.http.delete(url + response.headers["Location"]) as ended:
                    assert ended.status == 200
            await emptied(sessions)
        async with timeout(60):
            while len(udp_sockets()) > sockets:
                await asyncio.sleep(0.01)
        # It is as good as new.
        await one.connect()
        await one.frame()
    print(dict(told))
    assert told[201] >= 2
    assert told[400] >= 2


async def test_no_fragment_does_anything_but_be_taken_or_refused() -> None:
    told = Counter[int]()
    async with (
        fake_service(FakeModel(full_mask)) as (url, _),
        viewer(url, Camera(clip(*SIZE, 1))) as one,
    ):
        await one.connect()
        found = re.search(r"a=ice-ufrag:(\S+)", one.pc.localDescription.sdp)
        assert found
        fragment = FRAGMENT.format(ufrag=found[1])
        for dice in rounds(least=100):
            body = (
                mutated_lines(fragment, CORPUS, dice) if dice.random() < 0.8 else dice.randbytes(99).decode("latin-1")
            )
            tag = dice.choice([one.etag, one.etag, one.etag, one.etag, '"x"', "*", ""])
            headers = {"Content-Type": "application/trickle-ice-sdpfrag"} | ({"If-Match": tag} if tag else {})
            async with one.http.patch(one.location, data=body.encode(), headers=headers) as response:
                assert response.status in (204, 400, 412, 422, 428), (await response.text(), body)
                told[response.status] += 1
        await one.frame()
    print(dict(told))
    assert min(told[204], told[400], told[412]) > 2


@pytest.mark.parametrize(
    ("line", "count", "said"),
    [
        ("a=rtpmap:96 VP8/90000", 1, "got two a=rtpmap of payload type 96"),
        ("a=mid:0", 1, "got a=mid:0 twice"),
        ("m=video 9 UDP/TLS/RTP/SAVPF 96", 20, "lines m=, expected at most 16"),
        ("a=candidate:1 1 udp 1 192.0.2.1 9 typ host", 101, "lines a=candidate:, expected at most 100"),
        ("a=rtpmap:96 VP8/90000", 401, "lines a=rtpmap:, expected at most 400"),
        ("a=x", 3001, "lines in all, expected at most 3000"),
    ],
)
def test_an_offer_of_more_than_any_clients_is_refused(line: str, count: int, said: str) -> None:
    bounds.check_offer(CORPUS[0])
    # Of all that `str.splitlines` takes for the end of a line, as aiortc does.
    for end in ("\r\n", "\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028"):
        with pytest.raises(BadOffer, match=said):
            bounds.check_offer(CORPUS[0] + f"{line}{end}" * count)


async def test_a_connection_that_cannot_be_closed_in_order_keeps_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sections that are bundled with none, aiortc keeps the transports half open."""
    monkeypatch.setattr(
        "portrait.transports.webrtc.connection.parse_offer", lambda text: Offer(text, {}, (), frozenset())
    )
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url) as one:
        before = udp_sockets()
        async with await one.post(CORPUS[1].replace("BUNDLE 0 1", "BUNDLE 7 1"), "/whip/desk") as response:
            assert response.status == 400, await response.text()
        await emptied(sessions)
        assert udp_sockets() <= before


async def test_a_connection_that_never_closes_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has begun to close by itself and has failed: every later call of its `close` would wait forever."""
    monkeypatch.setattr("portrait.transports.webrtc.connection.CLOSE_SECONDS", 0.5)
    connection = Connection(print)
    await connection.answer(CORPUS[0], len)
    assert udp_sockets()

    async def fail() -> None:
        raise ConnectionError("half way")

    connection.pc._RTCPeerConnection__isClosed = asyncio.Future()  # type: ignore[attr-defined]
    connection.pc._RTCPeerConnection__closeTask = asyncio.ensure_future(fail())  # type: ignore[attr-defined]
    async with timeout(60):
        await connection.close()
    async with timeout(60):
        while udp_sockets():
            await asyncio.sleep(0.01)


async def test_an_offer_of_more_than_any_clients_is_refused_by_the_service() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url) as one:
        async with await one.post(CORPUS[0] + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 101) as response:
            assert response.status == 400
            assert "lines a=candidate:, expected at most 100" in (await response.json())["detail"]
        await emptied(sessions)


async def test_candidates_that_trickle_without_end_are_refused() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(clip(*SIZE, 1))) as one:
        await one.connect()
        found = re.search(r"a=ice-ufrag:(\S+)", one.pc.localDescription.sdp)
        assert found
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": one.etag}
        statuses = []
        for _ in range(bounds.MOST_CANDIDATES + 1):
            body = FRAGMENT.format(ufrag=found[1])
            async with one.http.patch(one.location, data=body, headers=headers) as response:
                statuses.append(response.status)
        assert statuses == [204] * bounds.MOST_CANDIDATES + [400]
        headers["Content-Type"] = "application/trickle-ice-sdpfrag"
        async with one.http.patch(one.location, data=body + "a=x\r\n" * 9999, headers=headers) as response:
            assert "characters, expected" in (await response.json())["detail"]


async def test_no_offer_holds_the_loop_up() -> None:
    """The worst that fits into the bounds."""
    head, *_ = CORPUS[0].rpartition("a=rtpmap:96")
    worst = head + "".join(f"a=rtpmap:{payload} VP8/90000\r\n" for payload in range(96, 476))
    worst += "a=ssrc:1 cname:x\r\n" * 390 + "a=rtcp-fb:96 nack\r\n" * 990
    worst += "".join(f"a=candidate:{i} 1 udp 1 192.0.2.{i} 9 typ host\r\n" for i in range(100))
    assert len(worst) < 64 * 1024
    turns: list[float] = []
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url) as one:
        watching = asyncio.create_task(watch_turns(turns))
        async with await one.post(worst) as response:
            assert response.status == 201, await response.text()
            assert len(await response.text()) < 200_000
        watching.cancel()
        async with one.http.delete(url + response.headers["Location"]):
            await emptied(sessions)
    assert max(turns) < 0.5  # 0.05 on an idle machine
