"""What a picture of 25 megapixels takes at its peak: under 300 MB beside the process that serves it."""

import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from portrait.admission.pixel_budget import WEBP_PIXELS

BOUND = 300

WORK = """
import sys
from dataclasses import replace
import cv2
import numpy as np
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import load_models
from portrait.image.frame import Mask
from portrait.metrics import Metrics
from portrait.transports.grpc.codec import GrpcCodec, IncomingPicture, Output
from portrait.transports.grpc.unary import pack_response
from portrait.transports.http.stills import StillCodec
from portrait.v1 import segmentation_pb2 as pb

cv2.setNumThreads(1)
_, path, mode, layout = sys.argv
model, options = load_models().pick(None), Options(mode)
pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
everybody = Mask(np.full((model.height, model.width), 255, np.uint8))
codec = StillCodec(25_000_000, layout) if layout.startswith(".") else GrpcCodec(25_000_000, model)

def as_received(data):
    if isinstance(codec, StillCodec):
        return data
    message = pb.Picture(format=pb.PICTURE_FORMAT_PNG, data=data)
    return IncomingPicture(message, Output(options, pb.PictureFormat.Value(layout), 0), 0)

def result_of(picture):
    result = pipeline.run(codec.decode(picture, 0.0, options), options, open_compositor(options))
    return codec.encode(replace(result, mask=everybody), picture)

def serve(data):
    made = result_of(as_received(data))
    return len(made if isinstance(made, bytes) else pack_response(made.picture, 0.1))

def peak():
    # Not by getrusage, which begins with the peak of the process that has started this one.
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

serve(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
data = open(path, "rb").read()
before = peak()
assert serve(data)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    small = np.random.default_rng(1).integers(0, 255, (50, 50, 4), np.uint8)
    large = np.asarray(cv2.resize(small, (5000, 5000), interpolation=cv2.INTER_LINEAR))
    large[:, :2500, 3] = 0
    return large


@pytest.fixture(scope="module")
def png(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("png") / "large.png"
    path.write_bytes(cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    return path


def test_a_jpeg_of_25_megapixels_stays_within_its_memory(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(cv2.imencode(".jpg", np.ascontiguousarray(picture[..., :3]))[1].tobytes())
    assert peak_of(path, "cutout", ".png") < BOUND


def test_a_webp_of_25_megapixels_stays_within_its_memory(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "large.webp"
    Image.fromarray(picture).save(path, quality=10, method=0)
    assert peak_of(path, "cutout", ".png") < BOUND


@pytest.mark.parametrize("layout", ["PICTURE_FORMAT_RGBA32", "PICTURE_FORMAT_JPEG"])
def test_a_png_of_25_megapixels_stays_within_its_memory_over_grpc(png: Path, layout: str) -> None:
    """With its response, which is 100 MB where nothing compresses it. JPEG has to drop the alpha."""
    assert peak_of(png, "cutout", layout) < BOUND


def test_a_still_of_noise_stays_within_its_memory(tmp_path: Path) -> None:
    """A result is the larger the less it can be compressed."""
    noise = np.random.default_rng(3).integers(0, 4, (5000, 5000, 3), np.uint8) * np.uint8(85)
    path = tmp_path / "noise.png"
    path.write_bytes(cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    assert peak_of(path, "cutout", ".png") < BOUND


def test_a_still_with_inks_stays_within_its_memory(tmp_path: Path, picture: np.ndarray) -> None:
    """A progressive picture is in memory twice: libjpeg keeps the coefficients of all four inks."""
    path = tmp_path / "inks.jpg"
    Image.fromarray(picture, "CMYK").save(path, quality=50, subsampling=0, progressive=True)
    assert peak_of(path, "cutout", ".png") < BOUND


def test_the_largest_still_whose_result_is_webp_stays_within_its_memory(tmp_path: Path) -> None:
    """Of noise, with an alpha: what its encoder needs the most memory for."""
    side = math.isqrt(WEBP_PIXELS)
    noise = np.random.default_rng(2).integers(0, 255, (side, side, 4), np.uint8)
    path = tmp_path / "noise.png"
    path.write_bytes(cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())
    assert peak_of(path, "cutout", ".webp") < BOUND


def peak_of(path: Path, mode: str, layout: str) -> float:
    """Megabytes by which a process grows that serves the picture, with the result in a layout of HTTP or gRPC."""
    words = [sys.executable, "-c", WORK, path, mode, layout]
    peak = float(subprocess.run(words, capture_output=True, text=True, timeout=600, check=True).stdout)
    print(f"{mode} {path.suffix} to {layout}: {peak:.0f} MB")
    return peak
