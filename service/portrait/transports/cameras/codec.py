"""PacketCodec: decodes a camera on the session's thread, and makes what its viewers watch."""

from collections.abc import Callable
from typing import Any

import av

from portrait.core.compositors import MODES, Options
from portrait.core.pipeline import Result
from portrait.errors import BadPicture
from portrait.image.av_frame import frame_from_av
from portrait.image.convert import usual_matrix
from portrait.image.frame import Frame
from portrait.sessions.broadcasts import make_outputs
from portrait.transports.cameras.packets import Packets, Video

INTRA = ("mjpeg", "rawvideo")
"""Codecs of which every picture stands alone: only the newest need be decoded."""


class PacketCodec:
    """The codec of a camera's session; `max_pixels` is the limit of a frame, `wanted` gives what is watched."""

    modes = tuple(mode for mode in MODES if mode != "cutout")  # a video has no alpha

    def __init__(self, video: Video, max_pixels: int, wanted: Callable[[], frozenset[str]]) -> None:
        self._decoder: Any = video.decoder
        self._decoder.options = {"max_pixels": str(max_pixels)}
        self._decoder.thread_count = 1
        self._is_intra = video.codec in INTRA
        self._max_pixels, self._wanted = max_pixels, wanted

    def decode(self, picture: Packets, arrived: float, options: Options) -> Frame:
        """Decode all packets and return the newest picture.

        Raises:
            BadPicture: none could be decoded, or the newest is larger than the limit.
        """
        newest, error = None, "the decoder has given no picture yet"
        for packet in picture.packets[-1:] if self._is_intra else picture.packets:
            try:
                frames = self._decoder.decode(packet)
            except (av.error.FFmpegError, ValueError) as failure:
                error = getattr(failure, "strerror", None) or str(failure)
            else:
                newest = frames[-1] if frames else newest
        if newest is None:
            raise BadPicture("frame", f"it cannot be decoded: {error}")
        return frame_from_av(newest, self._max_pixels, arrived, unknown=usual_matrix(newest.height))

    def encode(self, result: Result, picture: Packets) -> dict[str, Frame]:
        """Make each output that is watched."""
        return make_outputs(result, self._wanted())

    def close(self) -> None:
        """Free the decoder. Idempotent; after the session has closed."""
        self._decoder = None
