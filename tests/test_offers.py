"""WebRTC offers: which are answered, and with what; which are refused, saying why."""

import re

import pytest
from aioice import mdns
from aiortc import RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

from tests.fakes import FakeModel, full_mask
from tests.people import Clip
from tests.ports import free_ports
from tests.rtc import Camera, fake_service, viewer
from tests.whip import shown

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")


async def test_audio_and_a_second_video_are_declined(shown: Clip) -> None:
    tracks = [Camera(shown), AudioStreamTrack(), Camera(shown)]
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, *tracks) as one:
        await one.connect()
        directions = [transceiver.currentDirection for transceiver in one.pc.getTransceivers()]
        assert directions == ["sendrecv", "inactive", "inactive"]
        await one.frame()


async def test_names_behind_mdns_are_never_looked_up(shown: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aioice waits a second for a `.local` name that it cannot resolve; browsers without a camera offer only such."""
    looked_up: list[str] = []

    async def resolve(_: object, hostname: str, timeout: float = 1.0) -> None:
        looked_up.append(hostname)

    monkeypatch.setattr(mdns.MDnsProtocol, "resolve", resolve)
    hidden = "a=candidate:1 1 udp 2113937151 3e1a4a0c-1b7e-4e0b-8a43-000000000000.local 50000 typ host\r\n"
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as one:
        offer = (await one.offer()).replace("a=end-of-candidates\r\n", hidden + "a=end-of-candidates\r\n")
        assert hidden in offer
        response = await one.post(offer)
        assert response.status == 201
        await one.pc.setRemoteDescription(RTCSessionDescription(await response.text(), "answer"))
        await one.frame()
    assert looked_up == []


OFFER = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
RECVONLY = "m=video 9 UDP/TLS/RTP/SAVPF 97\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=mid:0\r\na=rtpmap:97 VP8/90000\r\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("hello", "the body starts with 'hello'; expected an SDP offer"),
        ("", "the body starts with ''"),
        ("v=0", "got an offer without video"),
        ("v=0\r\n\x00\xff garbage", "got an offer without video"),
        (OFFER, "got an offer without video"),
        (OFFER + "m=video nine\r\n", "the offer cannot be answered"),
        (OFFER + RECVONLY, "the offer cannot be answered"),
        ("v=0\r\n" + "a" * 70_000, "more than 65536 bytes"),
    ],
)
async def test_an_offer_that_is_none_is_refused_and_frees_everything(body: str, message: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url) as one:
        response = await one.post(body)
        document = await response.json()
        expected = (422, "UNSUPPORTED_OFFER") if "no video" in message else (400, "BAD_OFFER")
        assert (response.status, document["title"]) == expected, document
        assert message in document["detail"]
        assert await sessions.drain(60) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a=group:BUNDLE 0", "a=group:BUNDLE 7"),
        ("a=mid:0", "a=mid:7"),
        ("a=rtpmap:98 rtx", "a=rqpmap:98 rtx"),
        ("a=ice-ufrag:", "a=ice-fragu:"),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-0"),
        ("a=setup:actpass", "a=setup:never"),
        ("a=candidate:", "a=candidate:x "),
        ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVPF x"),
    ],
)
async def test_an_offer_with_one_wrong_line_is_answered_or_refused(shown: Clip, old: str, new: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(shown)) as one:
        offer = await one.offer()
        assert old in offer
        response = await one.post(offer.replace(old, new))
        assert response.status in (201, 400, 422), await response.text()
        if response.status == 201:
            async with one.http.delete(url + response.headers["Location"]):
                pass
        assert await sessions.drain(60) == 0


async def test_media_keeps_to_its_ports_and_without_one_an_offer_is_refused(shown: Clip) -> None:
    # The offers are made outside: inside the clients' own sockets would take the ports, being on the same loop.
    async with viewer("", Camera(shown)) as one, viewer("", Camera(shown)) as two:
        offers, ports = (await one.offer(), await two.offer()), free_ports(1)
        async with fake_service(FakeModel(full_mask), ports=ports, advertised=["192.0.2.7"]) as (url, sessions):
            one.url = two.url = url
            first = await one.post(offers[0])
            assert first.status == 201
            candidates = re.findall(r"a=candidate:\S+ \d+ udp \d+ (\S+) (\d+) typ host", await first.text())
            assert {int(port) for _, port in candidates} == set(ports)
            assert ("192.0.2.7", str(ports[0])) in candidates
            second = await two.post(offers[1])
            assert (second.status, (await second.json())["title"]) == (503, "NO_MEDIA_PORT")
            assert float(second.headers["Retry-After"]) > 0
            async with one.http.delete(url + first.headers["Location"]) as response:
                assert response.status == 200
            assert await sessions.drain(60) == 0


async def test_an_offer_of_unknown_codecs_is_refused(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as one:
        offer = (await one.offer()).replace("VP8/90000", "H265/90000").replace("H264/90000", "AV1/90000")
        response = await one.post(offer)
        assert (response.status, (await response.json())["title"]) == (422, "UNSUPPORTED_OFFER")


async def test_bad_queries_and_content_types_are_refused(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(shown)) as one:
        offer = await one.offer()
        for query in (
            {"mode": "sepia"},
            {"mode": "cutout"},
            {"model": "nope"},
            {"color": "green"},
            {"background": "x"},
        ):
            response = await one.post(offer, **query)
            assert (response.status, (await response.json())["title"]) == (400, "BAD_OPTION")
        async with one.http.post(f"{url}/webrtc", json={"sdp": offer}) as response:
            assert response.status == 415
        assert len(sessions) == 0
