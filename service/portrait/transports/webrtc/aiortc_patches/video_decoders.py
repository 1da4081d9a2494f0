"""Video decoders in the place of aiortc's own: by one thread, and only of sizes that are allowed.

A key frame of VP8 that is 100 bytes long may say that it is 16383x16383: libvpx would take more than a gigabyte.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

from portrait.errors import BadPicture

MAX_PIXELS = 4096 * 2304
"""Of a picture that is decoded. What may be worked on is another limit (`PORTRAIT_MAX_FRAME_PIXELS`), and less."""

MAX_BYTES = 2 * 2**20
"""Of a picture as it comes."""

VP8_START = b"\x9d\x01\x2a"


@dataclass(frozen=True, slots=True)
class Coded:
    """What has come of a camera since the last time, at least one picture, the oldest first.

    Each builds on those before it: all must be decoded, even where only the newest is wanted.
    """

    pictures: Sequence[tuple[RTCRtpCodecParameters, JitterFrame]]
    fail: Callable[[], None]
    """To be called when one cannot be decoded, from any thread: a key frame is asked for."""


class Undecoded:
    """Pictures that are whole and wait to be decoded. Takes the place of a receiver's queue to its decoder's thread.

    Used on the event loop. `came` is called for each, and `gone` when no more will come.
    """

    def __init__(self, fail: Callable[[], None], came: Callable[[], None], gone: Callable[[], None]) -> None:
        self._pictures: list[tuple[RTCRtpCodecParameters, JitterFrame]] = []
        self._fail, self._came, self._gone = fail, came, gone

    def put(self, picture: tuple[RTCRtpCodecParameters, JitterFrame] | None) -> None:
        """Take a picture, or note the end; aiortc calls this."""
        if picture is None:
            self._gone()
        else:
            self._pictures.append(picture)
            self._came()

    def take(self) -> Coded:
        """All that wait."""
        pictures, self._pictures = self._pictures, []
        return Coded(pictures, self._fail)


class BoundedVp8Decoder(vpx.Vp8Decoder):
    """VP8 whose key frames say a size that is allowed (RFC 6386 section 9.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.thread_count = 1

    def decode(self, encoded_frame: JitterFrame) -> list[Frame]:
        """The picture.

        Raises:
            av.error.InvalidDataError: it is too large, or none.
        """
        data = encoded_frame.data
        if data and not data[0] & 1 and data[3:6] == VP8_START and len(data) >= 10:
            _check(int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF)
        _check_length(data)
        return _decode(self.codec, encoded_frame)


class BoundedH264Decoder(h264.H264Decoder):
    """H.264 whose decoder refuses larger pictures by itself: in FFmpeg, unlike libvpx, that is an option."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.options = {"max_pixels": str(MAX_PIXELS)}
        self.codec.thread_count = 1

    def decode(self, encoded_frame: JitterFrame) -> list[Frame]:
        """The picture.

        Raises:
            av.error.InvalidDataError: it is too large, or none.
        """
        _check_length(encoded_frame.data)
        return _decode(self.codec, encoded_frame)


class CameraDecoder:
    """Decodes one camera's pictures. Used by one thread."""

    def __init__(self) -> None:
        self._codec, self._decoder = "", None  # type: str, Decoder | None

    def decode(self, coded: Coded) -> av.VideoFrame:
        """The newest picture.

        Raises:
            BadPicture: none of them could be decoded.
        """
        newest, trouble = None, "nothing to show yet"
        for codec, picture in coded.pictures:
            if self._decoder is None or codec.name != self._codec:
                self._codec, self._decoder = codec.name, bounded_decoder(codec)
            try:
                frames = self._decoder.decode(picture)
            except av.FFmpegError as error:
                # The decoder stays: a new one could decode nothing before the next key frame.
                trouble = str(error)
                coded.fail()
            else:
                newest = frames[-1] if frames else newest
        if newest is None:
            raise BadPicture("frame", f"it cannot be decoded: {trouble}")
        assert isinstance(newest, av.VideoFrame)
        return newest


def bounded_decoder(codec: RTCRtpCodecParameters) -> Decoder:
    """A decoder for a negotiated codec; audio's is aiortc's."""
    kinds: dict[str, type[Decoder]] = {"video/vp8": BoundedVp8Decoder, "video/h264": BoundedH264Decoder}
    kind = kinds.get(codec.mimeType.lower())
    return kind() if kind else stock_decoder(codec)


def _decode(codec: Any, picture: JitterFrame) -> list[Frame]:
    """As stock; but aiortc 1.15 keeps what cannot be decoded to itself."""
    packet = Packet(picture.data)
    packet.pts, packet.time_base = picture.timestamp, VIDEO_TIME_BASE
    frames: list[Frame] = codec.decode(packet)
    return frames


def _check(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise av.error.InvalidDataError(
            1, f"{width}x{height} is {width * height} pixels; expected {MAX_PIXELS} at most"
        )


def _check_length(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        raise av.error.InvalidDataError(1, f"{len(data)} bytes; expected {MAX_BYTES} at most")
