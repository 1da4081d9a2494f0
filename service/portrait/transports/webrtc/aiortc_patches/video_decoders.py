"""Video decoders in place of aiortc's own: single-threaded, and only for allowed sizes.

A VP8 keyframe of 100 bytes may claim 16383x16383 pixels, for which libvpx would allocate more than a gigabyte.
"""

from typing import Any

import av
from aiortc.codecs import get_decoder as stock_decoder
from aiortc.codecs import h264, vpx
from aiortc.codecs.base import Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import VIDEO_TIME_BASE
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av.frame import Frame
from av.packet import Packet

from portrait.transports.webrtc.keyframes import VP8_START_CODE

MAX_PIXELS = 4096 * 2304
"""Limit of a picture that is decoded. What is worked on has another, smaller limit: PORTRAIT_MAX_FRAME_PIXELS."""

MAX_BYTES = 2 * 2**20
"""Limit of a coded picture."""


class BoundedVp8Decoder(vpx.Vp8Decoder):
    """VP8 whose keyframes claim an allowed size (RFC 6386 section 9.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.thread_count = 1

    def decode(self, encoded_frame: JitterFrame) -> list[Frame]:
        """Decode one picture.

        Raises:
            av.error.InvalidDataError: too large, or not VP8.
        """
        data = encoded_frame.data
        if data and not data[0] & 1 and data[3:6] == VP8_START_CODE and len(data) >= 10:
            _check_pixels(int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF)
        return _decode(self.codec, encoded_frame)


class BoundedH264Decoder(h264.H264Decoder):
    """H.264. FFmpeg's decoder, unlike libvpx, has an option that makes it refuse larger pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.options = {"max_pixels": str(MAX_PIXELS)}
        self.codec.thread_count = 1

    def decode(self, encoded_frame: JitterFrame) -> list[Frame]:
        """Decode one picture.

        Raises:
            av.error.InvalidDataError: too large, or not H.264.
        """
        return _decode(self.codec, encoded_frame)


def bounded_decoder(codec: RTCRtpCodecParameters) -> Decoder:
    """A decoder for a negotiated codec; audio's is aiortc's."""
    kinds: dict[str, type[Decoder]] = {"video/vp8": BoundedVp8Decoder, "video/h264": BoundedH264Decoder}
    kind = kinds.get(codec.mimeType.lower())
    return kind() if kind else stock_decoder(codec)


def _decode(codec: Any, picture: JitterFrame) -> list[Frame]:
    data = picture.data
    if not data:
        return []  # FFmpeg takes an empty packet for the end of the stream and decodes nothing after it
    if len(data) > MAX_BYTES:
        raise av.error.InvalidDataError(1, f"got {len(data)} bytes, expected at most {MAX_BYTES}")
    packet = Packet(data)
    packet.pts, packet.time_base = picture.timestamp, VIDEO_TIME_BASE
    frames: list[Frame] = codec.decode(packet)
    return frames


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise av.error.InvalidDataError(
            1, f"got {width}x{height}, which is {width * height} pixels, expected at most {MAX_PIXELS}"
        )
