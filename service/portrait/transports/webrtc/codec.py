"""The codec of every WebRTC session."""

import av

from portrait.compositors import MODES
from portrait.frame import Frame
from portrait.pipeline import Result
from portrait.video import av_from_frame, frame_from_av


class VideoCodec:
    """Decoded pictures in, composed pictures out; `max_pixels` bounds what is worked on."""

    modes = tuple(mode for mode in MODES if mode != "cutout")  # a video track has no alpha

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def decode(self, picture: av.VideoFrame, arrived: float) -> Frame:
        """A Frame over the planes of a decoded picture.

        Raises:
            BadPicture: larger than the limit.
        """
        return frame_from_av(picture, self._max_pixels, arrived)

    def encode(self, result: Result, picture: av.VideoFrame) -> av.VideoFrame:
        """The composed picture at the time of its input."""
        frame = result.compose()
        with result.recorder.stage("encode"):
            return av_from_frame(frame)
