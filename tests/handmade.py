"""A client whose RTP packets are made by hand: what libwebrtc, GStreamer and hostile senders put on the wire."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from aiortc import MediaStreamTrack, RTCRtpReceiver
from aiortc.codecs import is_rtx
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import HeaderExtensionsMap, RtcpPacket, RtcpPsfbPacket, RtcpRtpfbPacket, RtpPacket, wrap_rtx

from portrait.transports.webrtc.aiortc_patches.video_codecs import live_encoder
from tests.people import clip
from tests.rtc import Viewer, viewer

PLI = 1
PERSON = clip(640, 480, 1).frames[0]

STEP = 3000
"""RTP ticks between pictures: 30 a second."""


def picture(number: int, width: int, height: int) -> av.VideoFrame:
    """A person who sways a little, with the time of the picture's number; yuv420p, of odd sizes as well."""
    shown = np.roll(cv2.resize(PERSON, (width + width % 2, height + height % 2)), number % 7, axis=1)
    planes = cv2.cvtColor(np.ascontiguousarray(shown), cv2.COLOR_BGR2YUV_I420)
    rows, columns = shown.shape[:2]
    luma, chroma = planes[:rows], planes[rows:].reshape(2, rows // 2, columns // 2)
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, pixels in zip(frame.planes, (luma, *chroma), strict=True):
        view = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[arg-type]
        view[:, : plane.width] = pixels[: plane.height, : plane.width]
    frame.pts, frame.time_base = STEP * number, Fraction(1, 90_000)
    return frame


class Encoder:
    """Encodes pictures of a person, one after the other."""

    def __init__(self, codec: str = "VP8") -> None:
        parameters = {"packetization-mode": "1"} if codec == "H264" else {}
        self._encoder = live_encoder(
            RTCRtpCodecParameters(f"video/{codec}", 90_000, payloadType=97, parameters=parameters)
        )
        self._count = 0

    def make(self, width: int = 320, height: int = 240, keyframe: bool = False) -> list[bytes]:
        """The payloads of the next picture."""
        payloads = self._encoder.encode(picture(self._count, width, height), keyframe)[0]
        self._count += 1
        return payloads


class HandmadeClient:
    """Sends RTP as it is told, and notes the pictures and the feedback that come back."""

    def __init__(self, one: Viewer, codec: str) -> None:
        self.one, self.codec = one, codec
        self.transceiver = one.pc.getTransceivers()[0]
        self.frames: list[av.VideoFrame] = []
        self.nacks: list[int] = []
        self.plis: list[float] = []
        self.sequence, self.timestamp = random.Random(1).randrange(1000, 30_000), 90_000
        self._map = HeaderExtensionsMap()
        self._reading: asyncio.Task[None] | None = None

    async def connect(self, path: str, munge: Callable[[str], str] = str, **query: str) -> None:
        """Offer, with the text of the offer changed by `munge`, and wait until RTP can be sent."""
        response = await self.one.post(munge(await self.one.offer()), path, **query)
        assert response.status == 201, await response.text()
        self.one.location = self.one.url + response.headers["Location"]
        transport: Any = self.transceiver.sender.transport
        stock = transport._handle_rtcp_data

        async def handle(data: bytes) -> None:
            for packet in RtcpPacket.parse(data):
                if isinstance(packet, RtcpRtpfbPacket):
                    self.nacks += packet.lost
                elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == PLI:
                    self.plis.append(asyncio.get_running_loop().time())
            await stock(data)

        transport._handle_rtcp_data = handle
        await self.one.take(await response.text())
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(20):
            while self.one.pc.connectionState != "connected":
                await asyncio.sleep(0.01)

    async def _read(self) -> None:
        track: MediaStreamTrack = await self.one.result
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                self.frames.append(frame)
        except MediaStreamError:
            pass

    async def send(
        self, payload: bytes, *, marker: bool = False, timestamp: int | None = None, padding: int = 0, rtx: bool = False
    ) -> None:
        """One packet, with the next sequence number; as a retransmission where `rtx` says so."""
        codecs = self.transceiver._codecs
        kind: Any = self.transceiver.sender
        packet = RtpPacket(
            payload_type=codecs[0].payloadType,
            marker=int(marker),
            sequence_number=self.sequence % 65536,
            timestamp=self.timestamp if timestamp is None else timestamp,
            ssrc=kind._ssrc,
            payload=payload,
        )
        packet.padding_size = padding
        self.sequence += 1
        if rtx:
            found = next(codec for codec in codecs if is_rtx(codec))
            packet = wrap_rtx(packet, payload_type=found.payloadType, sequence_number=0, ssrc=kind._rtx_ssrc)
        await kind.transport._send_rtp(packet.serialize(self._map))

    async def send_picture(self, payloads: list[bytes], lost: int | None = None) -> None:
        """The packets of a picture, except the one with the number `lost`."""
        for number, payload in enumerate(payloads):
            if number == lost:
                self.sequence += 1
            else:
                await self.send(payload, marker=number == len(payloads) - 1)
        self.timestamp += STEP

    async def feed(self, encoder: Encoder, count: int, width: int = 320, height: int = 240) -> None:
        """So many pictures at 30 a second, with keyframes where they are asked for."""
        asked = len(self.plis)
        for _ in range(count):
            keyframe, asked = len(self.plis) > asked, len(self.plis)
            await self.send_picture(encoder.make(width, height, keyframe))
            await asyncio.sleep(1 / 30)

    async def until_frames(self, count: int, encoder: Encoder) -> None:
        """Feed until `count` further pictures have come back."""
        wanted = len(self.frames) + count
        async with asyncio.timeout(30):
            while len(self.frames) < wanted:
                await self.feed(encoder, 3)

    async def numbers(self) -> dict[str, Any]:
        return await self.one.numbers()


def without(*feedback: str) -> Callable[[str], str]:
    """Removes kinds of feedback from an offer."""

    def munge(offer: str) -> str:
        for kind in feedback:
            offer = re.sub(rf"^a=rtcp-fb:\S+ {kind}\r\n", "", offer, flags=re.MULTILINE)
        return offer

    return munge


@asynccontextmanager
async def handmade(url: str, codec: str = "VP8", direction: str = "sendrecv") -> AsyncIterator[HandmadeClient]:
    """A client that has not yet connected."""
    async with viewer(url) as one:
        transceiver = one.pc.addTransceiver("video", direction=direction)
        offered = RTCRtpReceiver.getCapabilities("video").codecs
        transceiver.setCodecPreferences([each for each in offered if each.mimeType in (f"video/{codec}", "video/rtx")])
        client = HandmadeClient(one, codec)
        try:
            yield client
        finally:
            if client._reading is not None:
                client._reading.cancel()
