"""Rooms without people from panoramas: views such as a camera has them, as JPEG files for `training.train --rooms`.

Environment maps of 3D scenes are whole rooms and places in one picture, and many are public domain. Takes
equirectangular pictures with linear light: `.hdr`, `.exr`, and `.js` modules that hold an `.exr` as a base64 data URL.
"""

import argparse
import base64
import io
import re
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240


def read(path):
    """(h,2h,3) float32 RGB, linear, of a panorama. Raises ValueError for a file that holds none."""
    path = Path(path)
    if path.suffix == ".hdr":
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        found = None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    elif path.suffix == ".js":
        packed = re.search(rb"base64,([A-Za-z0-9+/=]+)", path.read_bytes())
        found = _exr(io.BytesIO(base64.b64decode(packed[1]))) if packed else None
    else:
        found = _exr(str(path))
    if found is None or found.shape[1] != 2 * found.shape[0]:
        came = "no picture" if found is None else f"a picture of {found.shape[1]}x{found.shape[0]}"
        raise ValueError(f"{path}: got {came}; expected a panorama, twice as wide as it is high")
    return np.maximum(found.astype(np.float32), 0.0)


def _exr(source):
    # OpenCV's wheels are built without OpenEXR; FFmpeg decodes it into planes of green, blue and red.
    with av.open(source, format="exr_pipe") as container:
        frame = next(container.decode(video=0))
    kinds = {"gbrpf16le": np.float16, "gbrpf32le": np.float32}
    if frame.format.name not in kinds:
        raise ValueError(f"got an EXR file of the format {frame.format.name}; expected one of {', '.join(kinds)}")
    kind = kinds[frame.format.name]
    green, blue, red = (
        np.frombuffer(plane, kind).reshape(frame.height, plane.line_size // np.dtype(kind).itemsize)[:, : frame.width]
        for plane in frame.planes[:3]
    )
    return np.stack([red, green, blue], axis=-1)


def view(panorama, yaw, pitch, angle, width=WIDTH, height=HEIGHT):
    """(height,width,3) float32: what a camera in the panorama's middle sees.

    `yaw` turns it to the right and `pitch` down; `angle` is what it sees from left to right. All in degrees.
    """
    rows, columns = panorama.shape[:2]
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    z = np.full_like(x, width / 2 / np.tan(np.radians(angle) / 2))
    cosine, sine = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    y, z = cosine * y + sine * z, cosine * z - sine * y
    longitude = np.arctan2(x, z) + np.radians(yaw)
    latitude = np.arctan2(y, np.hypot(x, z))
    across = ((longitude / (2 * np.pi) + 0.5) % 1.0 * columns - 0.5).astype(np.float32)
    down = ((latitude / np.pi + 0.5) * rows - 0.5).astype(np.float32)
    return cv2.remap(panorama, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def exposed(light, gain):
    """(H,W,3) uint8 of linear light, its middle at a medium grey times `gain`, highlights rolled off as cameras do."""
    light = light * (0.4 * gain / max(float(np.median(light)), 1e-6))
    return (255 * np.clip(light * (1 + light / 9) / (1 + light), 0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)


def views(panorama, number, rng):
    """`number` pictures (HEIGHT,WIDTH,3) uint8 all around, each at another height, angle and exposure."""
    for turn in range(number):
        yaw = (turn + rng.random()) * 360 / number
        seen = view(panorama, yaw, rng.uniform(-18, 22), rng.uniform(60, 100))
        yield exposed(seen, rng.uniform(0.7, 1.6))


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("panoramas", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("rooms"), help="folder of the views (default rooms)")
    parser.add_argument("--views", type=int, default=20, help="of each panorama (default 20)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for path in sorted(arguments.panoramas):
        for number, seen in enumerate(views(read(path), arguments.views, rng)):
            name = arguments.out / f"{path.name.split('.')[0]}_{number:02d}.jpg"
            cv2.imwrite(str(name), cv2.cvtColor(seen, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 92))


if __name__ == "__main__":
    main()
