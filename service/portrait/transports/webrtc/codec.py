"""The codecs of WebRTC sessions: a camera's pictures in, pictures to send or to encode out."""

from collections.abc import Callable

import av
import cv2
import numpy as np

from portrait.core.compositors import MODES, Options
from portrait.core.pipeline import Result
from portrait.image.av_frame import av_from_frame, frame_from_av
from portrait.image.convert import recolored
from portrait.image.frame import CAMERA, GREY, Frame, chroma_size
from portrait.image.mask import Mask
from portrait.transports.webrtc.aiortc_patches import TrackEncoder, rtp_time
from portrait.transports.webrtc.aiortc_patches.video_decoders import CameraDecoder, Coded
from portrait.transports.webrtc.aiortc_patches.video_encoders import Encoded
from portrait.transports.webrtc.mask_channel import MaskMessage


class VideoCodec:
    """Composed pictures out; `max_pixels` bounds what is worked on."""

    modes = tuple(mode for mode in MODES if mode != "cutout")  # a video track has no alpha

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels, self._decoder = max_pixels, CameraDecoder()

    def decode(self, picture: Coded, arrived: float, options: Options) -> Frame:
        """The newest of what came.

        Raises:
            BadPicture: larger than the limit, or it cannot be decoded.
        """
        return frame_from_av(self._decoder.decode(picture), self._max_pixels, arrived)

    def encode(self, result: Result, picture: Coded) -> av.VideoFrame:
        """The composed picture at the time of its input."""
        frame = result.compose()
        with result.recorder.stage("encode"):
            return av_from_frame(recolored(frame, CAMERA))  # VP8 has these colours only (RFC 6386, 9.2)


class LoopCodec(VideoCodec):
    """Composed pictures out, encoded."""

    def __init__(self, max_pixels: int, encoder: TrackEncoder) -> None:
        super().__init__(max_pixels)
        self._encoder = encoder

    def encode(self, result: Result, picture: Coded) -> Encoded:  # type: ignore[override]
        """The composed picture at the time of its input."""
        return self._encode(result.compose(), result)

    def _encode(self, frame: Frame, result: Result) -> Encoded:
        with result.recorder.stage("encode"):
            return self._encoder.encode(av_from_frame(recolored(frame, CAMERA)))


class MaskCodec(LoopCodec):
    """The mask alone, for a client that composes by itself; no picture is made."""

    modes = ("mask",)

    def encode(self, result: Result, picture: Coded) -> Encoded:  # type: ignore[override]
        """The mask as a picture at the time of its frame."""
        return self._encode(mask_picture(result.mask, result.frame), result)


class DataCodec(VideoCodec):
    """The mask as a message for a data channel."""

    modes = ("mask",)

    def encode(self, result: Result, picture: Coded) -> bytes:  # type: ignore[override]
        """The bytes of a `MaskMessage`."""
        with result.recorder.stage("encode"):
            return MaskMessage.of(result.mask, rtp_time(result.frame.timestamp.ticks)).pack()


class StreamCodec(VideoCodec):
    """What the viewers of a stream want: {"composite": picture, "mask": picture}, and nothing that nobody watches."""

    def __init__(self, max_pixels: int, wanted: Callable[[], frozenset[str]]) -> None:
        super().__init__(max_pixels)
        self._wanted = wanted

    def encode(self, result: Result, picture: Coded) -> dict[str, av.VideoFrame]:  # type: ignore[override]
        """The pictures at the time of their input."""
        wanted, made = self._wanted(), {}
        if "composite" in wanted:
            made["composite"] = super().encode(result, picture)
        if "mask" in wanted:
            with result.recorder.stage("encode"):
                made["mask"] = av_from_frame(mask_picture(result.mask, result.frame))
        return made


def mask_picture(mask: Mask, frame: Frame) -> Frame:
    """The mask at the model's size as a picture in video range: grey, 16 where nobody is and 235 where somebody is.

    A receiver that converts it to RGB, as browsers do, reads the probability as 0 to 255.
    """
    luma = np.asarray(cv2.convertScaleAbs(mask.values, alpha=219 / 255, beta=16), np.uint8)
    width, height = chroma_size(mask.width, mask.height)
    grey = np.full((height, width), GREY, np.uint8)
    return Frame(luma, grey, grey, frame.timestamp, frame.arrived)
