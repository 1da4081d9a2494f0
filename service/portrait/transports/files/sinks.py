"""Sinks: what a target is written as, that is which container, which codec and which options."""

from dataclasses import dataclass, field
from pathlib import Path

from portrait.transports.files.places import CAMERA, PIPE, is_live

QUALITY = "18"
"""x264's constant rate factor; the eye hardly tells the result from the original."""

RECORDING = {"crf": QUALITY, "preset": "veryfast"}
LIVE = {"crf": "23", "preset": "veryfast", "tune": "zerolatency", "g": "50"}
"""A media server cannot ask for a key frame for each viewer that joins, so one comes every two seconds at 25 pictures a
second; x264's own default is 250 pictures."""

FASTSTART = {"movflags": "+faststart"}
"""The index in front, so that a browser plays the file while it is still loading."""


@dataclass(frozen=True, slots=True)
class Sink:
    """How a target is written."""

    format: str | None = None
    """FFmpeg's name of the container; None: as the suffix says."""
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: dict(RECORDING))
    """Of the codec."""
    container_options: dict[str, str] = field(default_factory=dict)
    sound: bool = True


YUV4MPEG = Sink("yuv4mpegpipe", "rawvideo", {}, sound=False)

SINKS = {
    PIPE: YUV4MPEG,
    "rtmp": Sink("flv", options=LIVE),
    "rtmps": Sink("flv", options=LIVE),
    # Over UDP the first lost packet tears the picture, and a firewall lets none through.
    "rtsp": Sink("rtsp", options=LIVE, container_options={"rtsp_transport": "tcp"}),
    "tcp": Sink("mpegts", options=LIVE),
    "udp": Sink("mpegts", options=LIVE),
    # A virtual camera (v4l2loopback): FFmpeg sets its format to planar 4:2:0 of the result's size by VIDIOC_S_FMT.
    CAMERA: Sink("v4l2", "rawvideo", {}, sound=False),
}
"""By `-`, by scheme, or by how a device's path begins."""

FILES = {
    ".mp4": Sink(container_options=FASTSTART),
    ".m4v": Sink(container_options=FASTSTART),
    ".mov": Sink(container_options=FASTSTART),
    # AVI has one time per picture, not two: pictures that refer to later ones come out of order.
    ".avi": Sink(options=RECORDING | {"bf": "0"}),
    ".y4m": YUV4MPEG,
}
"""By suffix; any other that FFmpeg knows is written as it is."""


def sink_of(target: str) -> Sink:
    """How `target` is written."""
    if not is_live(target):
        return FILES.get(Path(target).suffix.lower(), Sink())
    return SINKS.get(CAMERA if target.startswith(CAMERA) else target.partition("://")[0], Sink())
