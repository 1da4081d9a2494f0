"""WebRTC offers: which are answered, and with what; which are refused, saying why."""

import re
from collections.abc import Callable

import pytest
from aioice import mdns
from aiortc import RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

from tests.fakes import FakeModel, full_mask
from tests.people import Clip
from tests.ports import free_ports
from tests.rtc import SIZE, Camera, fake_service, viewer
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
        ("hello", "got a body that starts with 'hello', expected an SDP offer"),
        ("", "got a body that starts with ''"),
        ("v=0", "got an offer without video"),
        ("v=0\r\n\x00\xff garbage", "got an offer without video"),
        (OFFER, "got an offer without video"),
        (OFFER + "m=video nine\r\n", "got 'm=video nine', expected m=KIND PORT PROTOCOL FORMATS"),
        (OFFER + RECVONLY, "got a section m=video without a=ice-ufrag, expected one"),
        ("v=0\r\n" + "a" * 70_000, "got more than 65536 bytes"),
    ],
)
async def test_an_offer_that_is_none_is_refused_and_frees_everything(body: str, message: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url) as one:
        response = await one.post(body)
        document = await response.json()
        expected = (422, "UNSUPPORTED_OFFER") if "without video" in message else (400, "BAD_OFFER")
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
        document = await response.json()
        assert (response.status, document["title"]) == (422, "UNSUPPORTED_OFFER")
        assert "got H265, RTX, AV1, expected a video section with VP8 or H264" in document["detail"]


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


# One offer, and one thing about it as other people's clients write it.


def change(old: str, new: str) -> Callable[[str], str]:
    def munge(offer: str) -> str:
        found = re.sub(old, new, offer, flags=re.MULTILINE)
        assert found != offer
        return found

    return munge


REJECTED = "m={kind} 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:x\r\n"


def before(section: str) -> Callable[[str], str]:
    return lambda offer: offer.replace("m=video", section + "m=video", 1)


def after(lines: str) -> Callable[[str], str]:
    return lambda offer: offer + lines


def at_session_level(offer: str) -> str:
    found = re.findall(r"^a=(?:ice-ufrag|ice-pwd|fingerprint|setup):.*\r\n", offer, re.MULTILINE)
    for line in found:
        offer = offer.replace(line, "")
    return offer.replace("m=", "".join(dict.fromkeys(found)) + "m=", 1)


VARIANTS: dict[str, Callable[[str], str]] = {
    "attributes after an extension's URI": after("a=extmap:9/sendonly http://example.com/ext.htm#xmeta short\r\n"),
    "an encrypted extension": after("a=extmap:10 urn:ietf:params:rtp-hdrext:encrypt http://example.com/x\r\n"),
    "names in BUNDLE that no section has": change("^a=group:BUNDLE 0", "a=group:BUNDLE z 0 1"),
    "no BUNDLE": change("^a=group:BUNDLE.*\r\n", ""),
    "line feeds alone": change("\r\n", "\n"),
    "a rejected sound section": after(REJECTED.format(kind="audio")),
    "a rejected video section before the video": before(REJECTED.format(kind="video")),
    "a section of text": after("m=text 0 UDP/TLS/RTP/SAVPF 100\r\na=mid:t\r\na=inactive\r\n"),
    "a section of an image": before("m=image 9 udptl t38\r\na=mid:t\r\n"),
    "a video of another codec beside it": before(
        "m=video 9 UDP/TLS/RTP/SAVPF 45\r\na=rtpmap:45 AV1/90000\r\na=mid:x\r\na=rtcp-mux\r\n"
    ),
    "everything at session level": at_session_level,
    "no direction": change("^a=sendrecv\r\n", ""),
    "no setup": change("^a=setup:.*\r\n", ""),
    "parameters of a format that is not there": after("a=fmtp:126 x=y\r\na=rtcp-fb:126 nack\r\n"),
    "parameters that are no numbers": after("a=fmtp:97 max-fr=thirty; max-fs=;apt\r\n"),
    "attributes without a value": after("a=ssrc:12\r\na=extmap:\r\na=rtcp:\r\na=fmtp:97\r\na=ssrc-group:FID\r\n"),
    "candidates that cannot be used": after(
        "a=candidate:9 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active\r\n"
        "a=candidate:8 1 udp 2122262783 fe80::1%eth0 54321 typ host generation 0 network-id 2\r\n"
        "a=candidate:7 1 UDP 2122262783 media.example.invalid 54322 typ host\r\n"
        "a=candidate:6 2 udp 1 192.0.2.1 9 typ host\r\na=candidate:5\r\n"
    ),
    "connection data and bandwidth of another kind": after("c=IN IP9 x\r\nb=TIAS\r\na=rtcp:9 IN IP4\r\n"),
    "simulcast, and sources that are not announced": lambda offer: (
        change("^a=ssrc.*\r\n", "")(offer) + "a=rid:f send\r\na=rid:q send\r\na=simulcast:send f;q\r\n"
    ),
    "a port count": change("^m=video (\\d+)", r"m=video \1/2"),
}


@pytest.mark.parametrize("munge", VARIANTS.values(), ids=VARIANTS.keys())
async def test_optional_parts_of_an_offer_are_read_over(shown: Clip, munge: Callable[[str], str]) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as one:
        response = await one.post(munge(await one.offer()))
        assert response.status == 201, await response.text()
        answer = await response.text()
        one.location = url + response.headers["Location"]
        # aiortc as a client is told of its own section alone.
        head, *sections = re.split("^(?=m=)", answer, flags=re.MULTILINE)
        (own,) = [section for section in sections if not re.match(r"m=\w+ 0 ", section)]
        await one.take(re.sub("^a=group:BUNDLE.*", "a=group:BUNDLE 0", head, flags=re.MULTILINE) + own)
        assert (await one.frame()).width == SIZE[0]


def sound(*lines: str, formats: str) -> Callable[[str], str]:
    """Another codec for the sound section of an offer."""

    def munge(offer: str) -> str:
        head, *sections = re.split("^(?=m=)", offer, flags=re.MULTILINE)
        for place, section in enumerate(sections):
            if section.startswith("m=audio"):
                bare = re.sub(r"^a=(?:rtpmap|fmtp|rtcp-fb):.*\r\n", "", section, flags=re.MULTILINE)
                sections[place] = re.sub(r"(m=audio \d+ \S+) .*", rf"\1 {formats}", bare) + "".join(lines)
        return head + "".join(sections)

    return munge


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize(
    "munge",
    [
        sound("a=rtpmap:98 L16/48000/2\r\n", formats="98"),
        sound("a=rtpmap:98 multiopus/48000/6\r\n", "a=fmtp:98 channel_mapping=0,4,1,2,3,5\r\n", formats="98"),
        sound("a=rtpmap:98 MP4A-LATM/48000/2\r\n", formats="98"),
        sound(formats="0 8"),
        change("^m=audio \\d+", "m=audio 0"),
        change("ssrc-audio-level", "ssrc-audio-level vad=on"),
    ],
    ids=["L16", "multiopus", "AAC", "static", "rejected", "extmap"],
)
async def test_sound_is_declined_whatever_its_codec(shown: Clip, munge: Callable[[str], str], is_first: bool) -> None:
    tracks = [Camera(shown), AudioStreamTrack()]
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, *tracks[:: -1 if is_first else 1]) as one:
        offer = munge(await one.offer())
        response = await one.post(offer)
        assert response.status == 201, await response.text()
        answer = await response.text()
        one.location = url + response.headers["Location"]
        section = answer[answer.index("m=audio") :].split("\r\nm=video")[0]
        assert "a=inactive" in section
        if "m=audio 0" in offer:
            assert section.startswith("m=audio 0 "), "rejected stays rejected"
        await one.take(answer)
        assert (await one.frame()).width == SIZE[0]


async def test_without_bundle_none_is_answered(shown: Clip) -> None:
    tracks = [Camera(shown), AudioStreamTrack()]
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, *tracks) as one:
        response = await one.post(change("^a=group:BUNDLE.*\r\n", "")(await one.offer()))
        assert response.status == 201, await response.text()
        answer = await response.text()
        assert "BUNDLE" not in answer
        one.location = url + response.headers["Location"]
        await one.take(answer)
        assert (await one.frame()).width == SIZE[0]


@pytest.mark.parametrize(("profile", "mode"), [("640c1f", "1"), ("64001f", "0"), ("4d001f", "1"), ("42e034", "0")])
async def test_h264_alone_is_taken_in_every_profile_and_packetization(shown: Clip, profile: str, mode: str) -> None:
    asked = f"packetization-mode={mode};profile-level-id={profile}"
    usual = "packetization-mode=1;profile-level-id=42e01f"
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as one:
        offered = RTCRtpReceiver.getCapabilities("video").codecs
        baseline = [each for each in offered if each.parameters.get("profile-level-id") == "42e01f"]
        one.pc.getTransceivers()[0].setCodecPreferences(baseline)
        offer = await one.offer()
        assert usual in offer
        response = await one.post(offer.replace(usual, asked))
        assert response.status == 201, await response.text()
        answer = await response.text()
        one.location = url + response.headers["Location"]
        assert asked in answer
        await one.take(answer.replace(asked, usual))
        assert (await one.frame()).width == SIZE[0]


async def test_h264_without_parameters_is_taken(shown: Clip) -> None:
    """It is baseline in packetization mode 0 then (RFC 6184 section 8.1)."""
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as one:
        offered = RTCRtpReceiver.getCapabilities("video").codecs
        baseline = [each for each in offered if each.parameters.get("profile-level-id") == "42e01f"]
        one.pc.getTransceivers()[0].setCodecPreferences(baseline)
        offer = await one.offer()
        [line] = re.findall(r"^a=fmtp:\d+ \S*42e01f\r\n", offer, re.MULTILINE)
        response = await one.post(offer.replace(line, ""))
        assert response.status == 201, await response.text()
        one.location = url + response.headers["Location"]
        own = re.sub(r"^a=fmtp:\d+ x-google\S*\r\n", lambda _: line, await response.text(), flags=re.MULTILINE)
        await one.take(own)
        assert (await one.frame()).width == SIZE[0]


async def test_ffmpeg_8s_offer_is_answered() -> None:
    """A group of two in an offer of one section, H.264 baseline, and no candidates."""
    offer = "\r\n".join(FFMPEG.strip().splitlines()) + "\r\n"
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url) as one:
        for profile in ("42001e", "64001e"):
            response = await one.post(offer.replace("42001e", profile), f"/whip/{profile}")
            answer = await response.text()
            assert response.status == 201, answer
            assert f"profile-level-id={profile}" in answer or profile == "42001e"
            assert "a=group:BUNDLE 1\r\n" in answer


FFMPEG = """
v=0
o=FFmpeg 1 2 IN IP4 127.0.0.1
s=FFmpegPublishSession
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS
m=video 9 UDP/TLS/RTP/SAVPF 106
c=IN IP4 0.0.0.0
a=ice-ufrag:0123abcd
a=ice-pwd:0123456789abcdef0123456789abcdef
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF
a=setup:passive
a=mid:1
a=sendonly
a=msid:FFmpeg video
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:106 H264/90000
a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001e
a=ssrc:7 cname:FFmpeg
"""
