"""Video encoders for live pictures, in the place of aiortc's own.

aiortc 1.16 encodes VP8 with the denoiser on (36 % of the time at 720p) and H.264 with x264's preset "medium" (five to
eight times the CPU of "superfast" at the same PSNR), takes as many threads as the machine has cores, and throws the
encoder away, with a key frame, whenever the receiver's bandwidth estimate moves by a tenth. The subclasses reach into
`codec`, which is not aiortc's public interface: `aiortc_patches` says which version they are for.
"""

from dataclasses import dataclass
from fractions import Fraction

import av
from aiortc.codecs import get_encoder as stock_encoder
from aiortc.codecs import h264, vpx
from aiortc.codecs.base import Encoder
from aiortc.mediastreams import VIDEO_TIME_BASE
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av.frame import Frame
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

STEP = 1.5
"""The encoder is rebuilt when the bandwidth estimate leaves its rate by this factor, up or down."""

ENOUGH = "500"
"""libvpx' `static-thresh`: a block of 16x16 pixels is not sent anew while its squared errors sum up to less, which is
45 dB and not seen. Most of a call is a room that stands still: -43 % of the time at 1280x720, -19 % at 640x360, for
0.4 to 1.6 dB of 48 to 51."""


FINEST = 16
"""libvpx' `min-quantizer`. With a finer one it spends all the rate there is on what nobody sees: a person before a
blurred room at 640x360 and 1 Mbit/s takes twice the bits, and packets, for 1.2 dB above 44."""

FAST = "-12"
"""libvpx' `cpu-used` at the realtime deadline: against -8 a fifth less time for 0.3 dB. Both together stay above what
aiortc's settings give of the same pictures (44.4 dB and 44.3)."""


def stepped(current: int, wanted: int) -> int:
    """The rate to encode at: `current` until `wanted` is STEP times more or less."""
    return current if current / STEP < wanted < current * STEP else wanted


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture that is encoded already."""

    payloads: list[bytes]
    """Of its RTP packets."""
    timestamp: int
    """RTP timestamp."""


class LiveEncoder:
    """What the encoders share. The bandwidth estimate moves them in steps, and what is encoded already passes them."""

    codec_limits = vpx
    """The module of aiortc that holds the codec's DEFAULT_, MIN_ and MAX_BITRATE."""

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

    def pack(self, packet: Packet | Encoded) -> tuple[list[bytes], int]:  # type: ignore[type-arg]  # in its stubs only
        """RTP payloads and timestamp of what a track gave instead of a frame."""
        assert isinstance(packet, Encoded)
        return packet.payloads, packet.timestamp


class LiveVp8Encoder(LiveEncoder, vpx.Vp8Encoder):
    """VP8 without denoiser, one thread, rebuilt only when the rate changes much."""

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
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
                "static-thresh": ENOUGH,
                "bufsize": rate,
                "minrate": rate,
                "maxrate": rate,
                "overshoot-pct": "15",
                "undershoot-pct": "100",
            }
        return super().encode(frame, force_keyframe)


class LiveH264Encoder(LiveEncoder, h264.H264Encoder):
    """x264 superfast, one thread, rebuilt only when the rate changes much."""

    codec_limits = h264

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """RTP payloads and timestamp of a frame."""
        assert isinstance(frame, av.VideoFrame)
        if not _fits(self.codec, frame, self._rate):
            self.buffer_data, self.buffer_pts = b"", None
            self.codec = _open("libx264", frame, self._rate)
            self.codec.framerate = Fraction(h264.MAX_FRAME_RATE)
            self.codec.options = {"preset": "superfast", "tune": "zerolatency", "level": "31"}
            self.codec.profile = "Baseline"
        return super().encode(frame, force_keyframe)


def live_encoder(codec: RTCRtpCodecParameters) -> Encoder:
    """The encoder of a negotiated codec."""
    match codec.mimeType.lower():
        case "video/vp8":
            return LiveVp8Encoder()
        case "video/h264":
            return LiveH264Encoder()
    return stock_encoder(codec)


def _fits(codec: VideoCodecContext | None, frame: av.VideoFrame, rate: int) -> bool:
    return codec is not None and (codec.width, codec.height, codec.bit_rate) == (frame.width, frame.height, rate)


def _open(name: str, frame: av.VideoFrame, rate: int) -> VideoCodecContext:
    codec = av.CodecContext.create(name, "w")
    assert isinstance(codec, VideoCodecContext)
    codec.width, codec.height, codec.bit_rate = frame.width, frame.height, rate
    codec.pix_fmt = "yuv420p"
    # PyAV moves the frame itself to the codec's clock: on a coarser one its RTP timestamp would not be the camera's.
    codec.time_base = VIDEO_TIME_BASE
    codec.thread_count = 1
    return codec
