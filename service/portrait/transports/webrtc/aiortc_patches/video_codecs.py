"""Video codecs for live pictures, in place of aiortc's own.

Decoders take pictures of allowed sizes only: a VP8 keyframe of 100 bytes may claim 16383x16383 pixels, for which libvpx
would allocate more than a gigabyte.

aiortc 1.16 encodes VP8 with the denoiser on (36 % of the time at 720p) and H.264 with x264's preset "medium" (five to
eight times the CPU of "superfast" at the same PSNR), takes as many threads as the machine has cores, and throws the
encoder away, with a keyframe, whenever the receiver's bandwidth estimate moves by a tenth. The subclasses reach into
`codec`, which is not part of aiortc's public interface: `aiortc_patches` says which version they are for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
from aiortc.codecs import get_decoder as stock_decoder
from aiortc.codecs import get_encoder as stock_encoder
from aiortc.codecs import h264, vpx
from aiortc.codecs.base import Decoder, Encoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import VIDEO_TIME_BASE, convert_timebase
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av.frame import Frame as AvFrame
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from portrait.image.av_frame import av_from_frame
from portrait.image.convert import even
from portrait.image.frame import Frame
from portrait.transports.webrtc.keyframes import VP8_START_CODE

MAX_PIXELS = 4096 * 2304
"""Limit of a picture that is decoded. What is worked on has another, smaller limit: PORTRAIT_MAX_FRAME_PIXELS."""

MAX_BYTES = 2 * 2**20
"""Limit of a coded picture."""

STEP = 1.5
"""The encoder is rebuilt when the bandwidth estimate differs from its rate by this factor, up or down."""

STATIC_THRESHOLD = "500"
"""libvpx' `static-thresh`: a block of 16x16 pixels is not sent again while its squared errors sum up to less, which is
45 dB and not visible. Most of a call is a room that stands still: -43 % of the time at 1280x720, -19 % at 640x360, for
0.4 to 1.6 dB of 48 to 51."""

FINEST = 16
"""libvpx' `min-quantizer`. With a finer one it spends the whole rate on invisible detail: a person before a blurred
room at 640x360 and 1 Mbit/s takes twice the bits, and packets, for 1.2 dB above 44."""

FAST = "-12"
"""libvpx' `cpu-used` at the realtime deadline: a fifth less time than -8 for 0.3 dB. With both settings the quality
stays above that of aiortc's (44.4 dB and 44.3)."""

LONGEST_STEP, USUAL_STEP = 90_000, 3_000
"""Ticks from one picture to the next in an encoder's time: a second at most; a thirtieth where the camera's times jump
or stand still."""

SLICE_BYTES = 1200
"""Size of a slice that fits one packet, for receivers that take single NAL units only (RFC 6184 packetization mode
0)."""


class BoundedVp8Decoder(vpx.Vp8Decoder):
    """VP8 whose keyframes claim an allowed size (RFC 6386 section 9.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.codec.thread_count = 1

    def decode(self, encoded_frame: JitterFrame) -> list[AvFrame]:
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

    def decode(self, encoded_frame: JitterFrame) -> list[AvFrame]:
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


def _decode(codec: Any, picture: JitterFrame) -> list[AvFrame]:
    data = picture.data
    if not data:
        return []  # FFmpeg takes an empty packet for the end of the stream and decodes nothing after it
    if len(data) > MAX_BYTES:
        raise av.error.InvalidDataError(1, f"got {len(data)} bytes, expected at most {MAX_BYTES}")
    packet = Packet(data)
    packet.pts, packet.time_base = picture.timestamp, VIDEO_TIME_BASE
    frames: list[AvFrame] = codec.decode(packet)
    return frames


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise av.error.InvalidDataError(
            1, f"got {width}x{height}, which is {width * height} pixels, expected at most {MAX_PIXELS}"
        )


def stepped(current: int, wanted: int) -> int:
    """The rate to encode at: `current` until `wanted` differs from it by STEP times."""
    return current if current / STEP < wanted < current * STEP else wanted


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture as its sender packs it."""

    payloads: list[bytes]
    """The payloads of its RTP packets."""
    timestamp: int
    """RTP timestamp."""
    is_keyframe: bool
    """Whether it was made to be decoded without those before it."""
    arrived: float
    """When its frame arrived, in seconds of the monotonic clock."""
    size: tuple[int, int]
    """(width, height) of its frame."""


class LiveEncoder:
    """What both encoders share: the bandwidth estimate moves them in steps, and encoded pictures pass through."""

    codec_limits = vpx
    """The module of aiortc that holds the codec's DEFAULT_, MIN_ and MAX_BITRATE."""
    needs_even_size = False
    """Whether pictures of an odd width or height cannot be encoded."""

    def __init__(self) -> None:
        self._rate = self.codec_limits.DEFAULT_BITRATE
        super().__init__()

    @property
    def target_bitrate(self) -> int:
        """Bits per second."""
        return self._rate

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        limits = self.codec_limits
        self._rate = stepped(self._rate, max(limits.MIN_BITRATE, min(bitrate, limits.MAX_BITRATE)))

    def pack(self, packet: Packet | EncodedPicture) -> tuple[list[bytes], int]:  # type: ignore[type-arg]  # in its stubs only
        """RTP payloads and timestamp of a picture that its track has encoded: ours are split already."""
        if isinstance(packet, EncodedPicture):
            return packet.payloads, packet.timestamp
        packed: tuple[list[bytes], int] = super().pack(packet)  # type: ignore[misc]  # of the codec's class, mixed in
        return packed


class LiveVp8Encoder(LiveEncoder, vpx.Vp8Encoder):
    """VP8 without the denoiser, single-threaded, rebuilt only when the rate changes much."""

    def encode(self, frame: AvFrame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """RTP payloads and timestamp of a frame."""
        assert isinstance(frame, av.VideoFrame)
        if not _fits(self.codec, frame, self._rate):
            self.codec = _open("libvpx", frame, self._rate)
            self.codec.gop_size, self.codec.qmin, self.codec.qmax = 3000, FINEST, 56
            rate = str(self._rate)
            self.codec.options = {
                "deadline": "realtime",
                "cpu-used": FAST,
                "lag-in-frames": "0",
                "noise-sensitivity": "0",
                "static-thresh": STATIC_THRESHOLD,
                "bufsize": rate,
                "minrate": rate,
                "maxrate": rate,
                "overshoot-pct": "15",
                "undershoot-pct": "100",
            }
        return super().encode(frame, force_keyframe)


class LiveH264Encoder(LiveEncoder, h264.H264Encoder):
    """H.264 by x264's preset superfast, single-threaded, rebuilt only when the rate changes much.

    Always constrained baseline, which every H.264 decoder takes whatever profile it offered.
    """

    codec_limits = h264
    needs_even_size = True

    def __init__(self, single_nal_units: bool = False) -> None:
        super().__init__()
        self._single_nal_units = single_nal_units

    def encode(self, frame: AvFrame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """RTP payloads and timestamp of a frame."""
        assert isinstance(frame, av.VideoFrame)
        if not _fits(self.codec, frame, self._rate):
            self.buffer_data, self.buffer_pts = b"", None
            self.codec = _open("libx264", frame, self._rate)
            self.codec.framerate = Fraction(h264.MAX_FRAME_RATE)
            options = {"preset": "superfast", "tune": "zerolatency", "level": "31"}
            if self._single_nal_units:
                options["x264-params"] = f"slice-max-size={SLICE_BYTES}"
            self.codec.options = options
            self.codec.profile = "Baseline"
        return super().encode(frame, force_keyframe)

    def _packetize(self, packages: Iterable[bytes]) -> list[bytes]:  # type: ignore[override]  # a class method there
        return list(packages) if self._single_nal_units else super()._packetize(packages)


class EncoderTime:
    """The times that an encoder is given: as far apart as the camera's, and always later, by a second at most.

    A camera that starts again jumps in time, and some repeat a time: libvpx refuses what is not later than the last.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._time = 0

    def next(self, ticks: int) -> int:
        """The time for a picture of this one; both in ticks of VIDEO_TIME_BASE."""
        if self._last is not None:
            step = ticks - self._last
            self._time += step if 0 < step <= LONGEST_STEP else USUAL_STEP
        self._last = ticks
        return self._time


class PictureEncoder:
    """Encodes one sender's pictures on whatever thread makes them; one picture at a time."""

    def __init__(self) -> None:
        self._encoder: Any = None  # one of aiortc's, whose rate and codec are no part of its interface
        self._time = EncoderTime()
        self._wanted = self._made = 0
        """Keyframes. The event loop counts requests, the encoding thread what it has answered: none is lost between."""

    def open(self, codec: RTCRtpCodecParameters) -> Encoder:
        """Make the encoder of a negotiated codec, before the first `encode`."""
        encoder = self._encoder = live_encoder(codec)
        return encoder

    def want_keyframe(self) -> None:
        """Make the next picture a keyframe."""
        self._wanted += 1

    @property
    def rate(self) -> int:
        """Bits per second."""
        return int(self._encoder.target_bitrate)

    @rate.setter
    def rate(self, bitrate: int) -> None:
        self._encoder.target_bitrate = bitrate

    @property
    def highest_rate(self) -> int:
        """Bits per second that the codec is used at, at most."""
        return int(self._encoder.codec_limits.MAX_BITRATE)

    def encode(self, frame: Frame) -> EncodedPicture:
        """Encode a frame, cropped by a row or a column where the codec needs an even size.

        Raises:
            av.FFmpegError: the codec refuses it.
        """
        encoder = self._encoder
        assert encoder is not None, "encode() before open() or after close()"
        if getattr(encoder, "needs_even_size", False):
            frame = even(frame)
        wanted, before = self._wanted, encoder.codec
        # The encoder's own copy: it marks keyframes in it, which another encoder of the same frame must not see.
        picture = av_from_frame(frame)
        timestamp = convert_timebase(frame.timestamp.ticks, frame.timestamp.time_base, VIDEO_TIME_BASE)
        picture.pts, picture.time_base = self._time.next(timestamp), VIDEO_TIME_BASE
        payloads, _ = encoder.encode(picture, wanted != self._made)
        is_keyframe = wanted != self._made or encoder.codec is not before
        self._made = wanted
        return EncodedPicture(payloads, timestamp, is_keyframe, frame.arrived, (frame.width, frame.height))

    def close(self) -> None:
        """Free the encoder. Idempotent."""
        self._encoder = None


def live_encoder(codec: RTCRtpCodecParameters) -> Encoder:
    """The encoder of a negotiated codec; audio's is aiortc's."""
    match codec.mimeType.lower():
        case "video/vp8":
            return LiveVp8Encoder()
        case "video/h264":
            return LiveH264Encoder(codec.parameters.get("packetization-mode", "0") != "1")
    return stock_encoder(codec)


def _fits(codec: VideoCodecContext | None, frame: av.VideoFrame, rate: int) -> bool:
    return codec is not None and (codec.width, codec.height, codec.bit_rate) == (frame.width, frame.height, rate)


def _open(name: str, frame: av.VideoFrame, rate: int) -> VideoCodecContext:
    codec = av.CodecContext.create(name, "w")
    assert isinstance(codec, VideoCodecContext)
    codec.width, codec.height, codec.bit_rate = frame.width, frame.height, rate
    codec.pix_fmt = "yuv420p"
    # PyAV converts the frame's time to the codec's time base; in a coarser one it would no longer be the camera's.
    codec.time_base = VIDEO_TIME_BASE
    codec.thread_count = 1
    return codec


class Packer(Protocol):
    """What a sender takes for its encoder while its track returns EncodedPictures."""

    target_bitrate: int
    """Bits per second, set to every estimate of the receiver's bandwidth."""

    def pack(self, picture: EncodedPicture) -> tuple[list[bytes], int]:
        """RTP payloads and timestamp of a picture."""


def negotiated_codec(transceiver: Any) -> RTCRtpCodecParameters:
    """The codec that this section sends with."""
    codec: RTCRtpCodecParameters = transceiver._codecs[0]
    return codec


def hand_over(transceiver: Any, encoder: PictureEncoder) -> None:
    """Let `encoder` encode for this section's sender, whose codec is negotiated; its track returns EncodedPictures.

    A picture then changes threads once. aiortc would encode on the event loop's default executor, after the session's
    thread has handed the picture to the loop.
    """
    send_encoded(transceiver, encoder.open(negotiated_codec(transceiver)), encoder.want_keyframe)


def send_encoded(transceiver: Any, packer: Packer | Encoder, want_keyframe: Callable[[], None]) -> None:
    """Let this section's sender send EncodedPictures of its track; `want_keyframe` is called when the peer asks."""
    sender = transceiver.sender
    # The sender moves its bit rate by the receiver's estimate, packs what the track returned, and lets go of it at the
    # end.
    sender._RTCRtpSender__encoder = packer
    sender._send_keyframe = want_keyframe
