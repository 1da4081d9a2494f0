"""Everything that reads bytes of somebody else's, as functions to feed them to; what each may refuse them with.

`tests/corpus/NAME/` holds bytes for each: well-formed ones, and those that once found something.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from struct import error, pack
from typing import Any

import av
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import HTTPException
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtcsctptransport import RTCSctpTransport, crc32c
from aiortc.rtp import HeaderExtensionsMap, RtcpPacket, RtpPacket, is_rtcp
from aiortc.sdp import SessionDescription, candidate_from_sdp
from google.protobuf.message import DecodeError

from portrait.core.compositors import Options
from portrait.core.segmenters import Model, load_models
from portrait.errors import BadSettings, PortraitError, Unauthenticated
from portrait.image.backgrounds import load_background
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.security import Security, open_security
from portrait.settings import PREFIX, Settings, load_settings
from portrait.transports.grpc.codec import GrpcCodec, IncomingPicture, read_output, read_prior
from portrait.transports.grpc.kserve import MASK, InferRequest, read_inputs
from portrait.transports.http.changes import read_change
from portrait.transports.http.stills import _read_request
from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches.data_channels import MOST_CHANNELS, read_nothing
from portrait.transports.webrtc.aiortc_patches.receiver import depayload, read_packet
from portrait.transports.webrtc.aiortc_patches.video_codecs import BoundedH264Decoder, BoundedVp8Decoder
from portrait.transports.webrtc.offer_limits import check_fragment, check_offer
from portrait.transports.webrtc.session_description import parse_offer
from portrait.v1 import segmentation_pb2 as pb
from tests.frames import decode_bgr

CORPUS = Path(__file__).parent / "corpus"
MOST_PIXELS = 200_000
"""Of a picture or a frame that is decoded."""

TOKEN = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads bytes. It takes them, or raises one of `refusals`; whatever else it raises is a defect."""

    feed: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = (PortraitError,)
    lenient: bool = False
    """Whether it leaves out what it cannot read."""

    def takes(self, data: bytes) -> bool:
        """Whether it takes the bytes; a refusal says something.

        Raises:
            Exception: a defect.
        """
        said = None
        try:
            self.feed(data)
        except self.refusals as refusal:
            said = str(refusal)
        assert said != "", "a refusal that says nothing"
        return said is None


def corpus(name: str) -> list[bytes]:
    """What is kept for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


@contextmanager
def file_of(data: bytes) -> Iterator[Path]:
    """A file that holds the bytes; in memory, as this is done thousands of times."""
    descriptor = os.memfd_create("portrait-test")
    try:
        os.write(descriptor, data)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@cache
def model() -> Model:
    return load_models().pick(None)


def read_offer(data: bytes) -> None:
    offer = data.decode("utf-8", "replace")
    check_offer(offer)
    SessionDescription.parse(parse_offer(offer).text)


def read_fragment(data: bytes) -> None:
    fragment = data.decode("utf-8", "replace")
    check_fragment(fragment)
    for line in fragment.splitlines():
        with suppress(AssertionError, IndexError, ValueError):  # as the connection leaves them out
            candidate_from_sdp(line.removeprefix("a=candidate:"))


async def read_form(data: bytes) -> None:
    loop = asyncio.get_running_loop()
    payload = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    payload.feed_data(data)
    payload.feed_eof()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    await _read_request(make_mocked_request("POST", "/v1/segment", headers, payload=payload, client_max_size=2**20))


def read_picture(data: bytes) -> None:
    pixels = decode_bgr(data, MOST_PIXELS)
    assert pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS
    frame = frame_from_bgr(pixels, Timestamp(0, Fraction(1)), 0.0)
    assert (frame.height, frame.width) == pixels.shape[:2]
    load_background(data)


def read_message(data: bytes) -> None:
    message = pb.SegmentStreamRequest.FromString(data)
    for asked in (message.config.output, message.control.output):
        output = read_output(asked, load_background(asked.background_picture) if asked.background_picture else None)
        if message.HasField("frame"):
            arrival = IncomingPicture(message.frame.picture, output, message.frame.timestamp_us)
            frame = GrpcCodec(MOST_PIXELS, model()).decode(arrival, 0.0, output.options)
            assert frame.width * frame.height <= MOST_PIXELS
    if message.config.HasField("prior"):
        read_prior(message.config.prior, MOST_PIXELS)


def read_inference(data: bytes) -> None:
    picture, prior = read_inputs(InferRequest.parse(data), MOST_PIXELS, MOST_PIXELS)
    assert prior is None or prior.width * prior.height <= MOST_PIXELS
    GrpcCodec(MOST_PIXELS, model()).decode(IncomingPicture(picture, MASK, 0), 0.0, Options("mask"))


def read_video(decoder: Any, data: bytes) -> None:
    for _ in range(2):
        decoder.decode(JitterFrame(data, 0))


class Silent:
    """A DTLS transport that sends nothing, and counts."""

    def __init__(self) -> None:
        self.sent = 0
        self.state, self._role = "connected", "server"

    async def _send_data(self, data: bytes) -> None:
        self.sent += 1

    def _unregister_data_receiver(self, receiver: object) -> None:
        pass


async def read_sctp(data: bytes) -> None:
    """The chunks of a packet, whose head and checksum are right, of a client with an open association."""
    aiortc_patches.install()
    transport: Any = Silent()
    sctp: Any = RTCSctpTransport(transport)
    read_nothing(sctp)
    sctp._remote_port = 5000
    sctp._last_received_tsn, sctp._association_state = 0, sctp.State.ESTABLISHED
    head = pack("!HHL", 5000, 5000, sctp._local_verification_tag)
    await sctp._handle_data(head + pack("<L", crc32c(head + bytes(4) + data)) + data)
    assert transport.sent <= MOST_ANSWERS
    assert not sctp._inbound_streams
    await sctp.stop()


MOST_ANSWERS = 8 + 2 * MOST_CHANNELS
"""To one packet: to a chunk of each type, and to channels that are opened."""

EXTENSIONS = [
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
]


@cache
def extensions() -> HeaderExtensionsMap:
    known = HeaderExtensionsMap()
    headers = [RTCRtpHeaderExtensionParameters(number, uri) for number, uri in enumerate(EXTENSIONS, 1)]
    known.configure(RTCRtpParameters(headerExtensions=headers))
    return known


def read_rtp(data: bytes) -> None:
    """A packet after its decryption, as a camera's first one is read, as the later ones are, and as feedback."""
    if is_rtcp(data):
        RtcpPacket.parse(data)
        return
    first = RtpPacket.parse(data, extensions())
    later = read_packet(data)
    assert later is not None
    assert later.payload == first.payload
    for name in ("VP8", "H264"):
        depayload(RTCRtpCodecParameters(f"video/{name}", 90_000, payloadType=96), later.payload)


def read_settings(data: bytes) -> None:
    with file_of(data) as path:
        use(load_settings({"config": str(path)}, {}))


def read_environment(data: bytes) -> None:
    """A line for each variable."""
    lines = [line.partition("=") for line in data.decode("utf-8", "replace").replace("\0", "").splitlines()]
    environ = {name: value for name, _, value in lines if name != PREFIX + "CONFIG"}
    use(load_settings({}, environ))


def use(settings: Settings) -> None:
    """Everything that settings are read as."""
    assert settings.media_port_range.stop <= 65536
    for many in (settings.advertised, settings.own_names, settings.ice_servers, settings.allowed_origins):
        assert list(many) == [one.strip() for one in many]
    assert repr(settings.turn_secret) in ("SecretStr('')", "SecretStr('**********')")
    json.dumps(settings.model_dump(mode="json"))


def read_credentials(setting: str, data: bytes) -> None:
    """Whatever is in the file, a token that is in no file lets nobody in, and what is wrong with it tells no token."""
    with file_of(data) as path:
        try:
            security = open_security(Settings.model_validate({setting: path}))
        except BadSettings as refusal:
            if TOKEN in str(refusal):
                raise AssertionError("a refusal tells a token") from refusal
            raise
        lets_nobody_in(security, "Bearer nobody-has-this-token")


def lets_nobody_in(security: Security, header: str) -> None:
    try:
        security.check(header, has_certificate=False)
    except Unauthenticated:
        return
    raise AssertionError(f"{header!r} was let in")


@cache
def guarded() -> Security:
    with file_of(f"camera {TOKEN}\n".encode()) as tokens, file_of((CORPUS / "keys" / "jwk.json").read_bytes()) as keys:
        return open_security(Settings.model_validate({"tokens": tokens, "jwt_keys": keys}))


def read_authorization(data: bytes) -> None:
    header = data.decode("latin-1")
    guarded().check(header, has_certificate=False)
    assert header.split() == ["Bearer", TOKEN] or header.lower().split() == ["bearer", TOKEN]


TARGETS = {
    "offer": Target(read_offer),
    "fragment": Target(read_fragment, lenient=True),
    "form": Target(lambda data: asyncio.run(read_form(data)), (PortraitError, HTTPException)),
    "changes": Target(read_change),
    "picture": Target(read_picture),
    "vp8": Target(lambda data: read_video(BoundedVp8Decoder(), data), (av.FFmpegError,)),
    "h264": Target(lambda data: read_video(BoundedH264Decoder(), data), (av.FFmpegError,)),
    "sctp": Target(lambda data: asyncio.run(read_sctp(data)), lenient=True),
    "rtp": Target(read_rtp, (ValueError, error)),
    "message": Target(read_message, (PortraitError, DecodeError)),
    "inference": Target(read_inference, (PortraitError, DecodeError)),
    "settings": Target(read_settings),
    "environment": Target(read_environment),
    "tokens": Target(lambda data: read_credentials("tokens", data)),
    "keys": Target(lambda data: read_credentials("jwt_keys", data)),
    "authorization": Target(read_authorization),
}
