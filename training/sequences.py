"""Moving pictures with exact masks: people moved over rooms, and the clips of the data folder.

A generated sequence is a val selfie, cut out, before a room that training keeps out, seen by a noisy sensor and, in two
of three, through a video encoder at a video call's bit rate.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from training.data import Portraits, pasted

SIZE = (320, 240)
FRAMES = 16
CUT = 6
"""The frame of a "cut" from which nobody is there any more."""

NOISE = 3.0
"""Standard deviation of the sensor's noise, of 255."""

SWAY = {"still": 0.0, "slow": 0.02, "fast": 0.15, "cut": 0.02}
"""How far a person sways to either side over the length of a sequence, as a share of the width."""

CONDITIONS = ("raw", "vp8", "h264")
BITRATE = 300_000


@dataclass(frozen=True)
class Sequence:
    """Frames (H,W,3) uint8 RGB and their masks (H,W) bool."""

    name: str
    kind: str
    condition: str
    frames: list[np.ndarray]
    truths: list[np.ndarray]


def generated(data, count=24):
    """Four sequences (still, slow, fast, cut) of each of `count` people; a still one under every condition."""
    val = Portraits(data, "val")
    people = [val[i] for i in range(len(val)) if val.part(i) == "self"][:count]
    paths = sorted((Path(data) / "backgrounds").glob("*.jpg"))[::10]
    for number, ((image, mask), path) in enumerate(zip(people, paths, strict=False)):
        room = cv2.resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), SIZE)
        for kind in SWAY:
            for condition in CONDITIONS if kind == "still" else [CONDITIONS[number % len(CONDITIONS)]]:
                pairs = list(swaying(image, mask, room, kind))
                rng = np.random.default_rng(number)
                frames = [noisy(frame, rng) for frame, _ in pairs]
                if condition != "raw":
                    frames = compressed(frames, condition)
                yield Sequence(f"{number:02d}", kind, condition, frames, [truth for _, truth in pairs])


def swaying(image, mask, room, kind):
    """(frame, truth) of a person before a room; from CUT on the room alone in a "cut"."""
    width, height = SIZE
    scaled = round(image.shape[1] * height / image.shape[0]), height
    image, mask = cv2.resize(image, scaled), cv2.resize(mask, scaled, interpolation=cv2.INTER_NEAREST)
    for i in range(FRAMES):
        if kind == "cut" and i >= CUT:
            yield room, np.zeros((height, width), bool)
            continue
        x = (width - scaled[0]) / 2 + SWAY[kind] * width * np.sin(2 * np.pi * i / FRAMES)
        shift = np.float32([[1, 0, x], [0, 1, 0]])
        moved = cv2.warpAffine(image, shift, SIZE, borderMode=cv2.BORDER_REPLICATE)
        truth = cv2.warpAffine(mask, shift, SIZE, flags=cv2.INTER_NEAREST)
        yield pasted(moved, truth, room), truth > 127


def noisy(picture, rng):
    """The picture as a sensor sees it once more."""
    return np.clip(picture + rng.normal(0.0, NOISE, picture.shape), 0, 255).astype(np.uint8)


def compressed(frames, condition):
    """The frames after VP8 or H.264 as a video call encodes them: no look-ahead, no B frames, BITRATE."""
    codec, options = {
        "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
        "h264": ("libx264", {"preset": "superfast", "tune": "zerolatency"}),
    }[condition]
    file = io.BytesIO()
    with av.open(file, "w", "matroska") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.bit_rate = BITRATE
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def clips(data):
    """The clips of the data folder, if it has any: real motion, a mask for every frame."""
    for folder in sorted(path.parent for path in (Path(data) / "clips").glob("*/masks")):
        names = sorted(path.stem for path in (folder / "masks").iterdir())
        frames = [cv2.cvtColor(cv2.imread(str(folder / "images" / f"{n}.jpg")), cv2.COLOR_BGR2RGB) for n in names]
        truths = [cv2.imread(str(folder / "masks" / f"{n}.png"), cv2.IMREAD_GRAYSCALE) > 127 for n in names]
        yield Sequence(folder.name, "clip", "raw", frames, truths)
