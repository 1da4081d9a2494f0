"""The codecs of WebRTC sessions, run on the session's thread: a camera's pictures in, what is sent out."""

from collections.abc import Callable

import av
from aiortc.codecs.base import Decoder

from portrait.core.compositors import MODES, Options
from portrait.core.pipeline import Result
from portrait.errors import BadPicture
from portrait.image.av_frame import frame_from_av
from portrait.image.convert import recolored
from portrait.image.frame import CAMERA, Frame, check_size
from portrait.sessions.broadcasts import make_outputs, mask_frame
from portrait.transports.webrtc.aiortc_patches.receiver import rtp_time
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, PictureEncoder, bounded_decoder
from portrait.transports.webrtc.backlog import CodedPictures
from portrait.transports.webrtc.keyframes import coded_size, is_keyframe
from portrait.transports.webrtc.mask_channel import MaskMessage


class CameraCodec:
    """Decodes a camera; `max_pixels` is the limit of a frame that is worked on."""

    modes = tuple(mode for mode in MODES if mode != "cutout")  # a video track has no alpha

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._codec_name = ""
        self._decoder: Decoder | None = None
        self._too_large: BadPicture | None = None
        """Why pictures are refused undecoded, from a keyframe of more pixels than the limit to the next keyframe."""

    def decode(self, picture: CodedPictures, arrived: float, options: Options) -> Frame:
        """Decode all pictures and return the newest.

        Raises:
            BadPicture: none could be decoded, or the newest is larger than the limit.
        """
        newest, error = None, "no keyframe has come yet"
        for codec, coded in picture.pictures:
            self._check_size(coded.data)
            if self._too_large is not None:
                continue
            if self._decoder is None or codec.name != self._codec_name:
                self._codec_name, self._decoder = codec.name, bounded_decoder(codec)
            try:
                frames = self._decoder.decode(coded)
            except av.FFmpegError as failure:
                error = failure.strerror or str(failure)
                picture.decoding.failed(error)
                # A new decoder could decode nothing before the next keyframe. One that cannot decode a keyframe, or
                # takes the stream for ended, has nothing to lose.
                if isinstance(failure, av.EOFError) or is_keyframe(coded.data):
                    self._decoder = None
            else:
                newest = frames[-1] if frames else newest
        if self._too_large is not None:
            picture.decoding.succeeded()
            raise self._too_large
        if newest is None:
            raise BadPicture("frame", f"it cannot be decoded: {error}")
        picture.decoding.succeeded()
        assert isinstance(newest, av.VideoFrame)
        return frame_from_av(newest, self._max_pixels, arrived)

    def _check_size(self, data: bytes) -> None:
        """Note whether the pictures from here on are too large, and free a decoder of larger ones.

        H.264 lets a sender have seventeen pictures kept: at 4096x2304 they took 133 MB.
        """
        if (size := coded_size(data)) is None:
            return
        self._too_large = None
        try:
            check_size(*size, self._max_pixels, "frame")
        except BadPicture as error:
            self._too_large, self._decoder = error, None

    def close(self) -> None:
        """Free the decoder. Idempotent; after the session has closed."""
        self._decoder = None


class LoopbackCodec(CameraCodec):
    """Composed frames out, encoded for the client that sent them."""

    def __init__(self, max_pixels: int, encoder: PictureEncoder) -> None:
        super().__init__(max_pixels)
        self._encoder = encoder

    def encode(self, result: Result, picture: CodedPictures) -> EncodedPicture:
        """Compose and encode, with the time of the input."""
        return self._encode(result.compose(), result)

    def close(self) -> None:
        """Free decoder and encoder. Idempotent; after the session has closed."""
        super().close()
        self._encoder.close()

    def _encode(self, frame: Frame, result: Result) -> EncodedPicture:
        with result.metrics.stage("encode"):
            if frame.colors != CAMERA:  # VP8 has a camera's colours only (RFC 6386 section 9.2)
                frame = recolored(frame, CAMERA)
            return self._encoder.encode(frame)


class MaskCodec(LoopbackCodec):
    """The mask alone as a video, for a client that composes by itself."""

    modes = ("mask",)

    def encode(self, result: Result, picture: CodedPictures) -> EncodedPicture:
        """Encode the mask, with the time of its frame."""
        return self._encode(mask_frame(result.mask, result.frame), result)


class MaskMessageCodec(CameraCodec):
    """The mask as a message for a data channel."""

    modes = ("mask",)

    def encode(self, result: Result, picture: CodedPictures) -> bytes:
        """The bytes of a `MaskMessage`."""
        with result.metrics.stage("encode"):
            return MaskMessage.of(result.mask, rtp_time(result.frame.timestamp.ticks)).pack()


class BroadcastCodec(CameraCodec):
    """The outputs that a stream's viewers watch, as frames."""

    def __init__(self, max_pixels: int, wanted: Callable[[], frozenset[str]]) -> None:
        super().__init__(max_pixels)
        self._wanted = wanted

    def encode(self, result: Result, picture: CodedPictures) -> dict[str, Frame]:
        """Make each output that is watched: {"composite": frame, "mask": frame}."""
        return make_outputs(result, self._wanted())
