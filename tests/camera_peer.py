"""A camera that listens at an address and serves whoever connects: `python camera_peer.py URL PICTURE`.

A process of its own, since PyAV holds the interpreter while it listens.
"""

import contextlib
import itertools
import sys
import time
from fractions import Fraction

import av
import cv2


def main(url: str, picture: str) -> None:
    shown = cv2.imread(picture)
    with (
        contextlib.suppress(OSError),  # the other side has gone
        av.open(url, "w", format="mpegts") as container,
    ):
        video = container.add_stream(
            "libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        )
        video.height, video.width = shown.shape[:2]
        video.pix_fmt = "yuv420p"
        for i in itertools.count():
            frame = av.VideoFrame.from_ndarray(shown, format="bgr24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
            time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
