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
import resource, sys
from dataclasses import replace
import cv2
import numpy as np
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import load_models
from portrait.image.frame import Mask
from portrait.metrics import Metrics
from portrait.transports.http.stills import StillCodec

cv2.setNumThreads(1)
model, options = load_models().pick(None), Options(sys.argv[2])
codec, pipeline = StillCodec(25_000_000, sys.argv[3]), Pipeline(model.open(), (model.width, model.height), Metrics())
everybody = Mask(np.full((model.height, model.width), 255, np.uint8))

def serve(data):
    result = pipeline.run(codec.decode(data, 0.0, options), options, open_compositor(options))
    return len(codec.encode(replace(result, mask=everybody), data))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

serve(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
data = open(sys.argv[1], "rb").read()
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


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".jpg", "cutout"), (".png", "blur"), (".webp", "cutout")],
)
def test_a_still_of_25_megapixels_stays_within_its_memory(
    tmp_path: Path, picture: np.ndarray, suffix: str, mode: str
) -> None:
    pixels = picture[..., :3] if suffix == ".jpg" else picture
    # Lossy WebP, written as fast as it can be.
    options = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 10], ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1]}.get(suffix, [])
    path = tmp_path / f"large{suffix}"
    path.write_bytes(cv2.imencode(suffix, np.ascontiguousarray(pixels), options)[1].tobytes())
    assert peak_of(path, mode, ".png") < BOUND


@pytest.mark.parametrize("progressive", [False, True])
def test_a_still_with_inks_stays_within_its_memory(tmp_path: Path, picture: np.ndarray, progressive: bool) -> None:
    """Progressive pictures are in memory twice: libjpeg keeps the coefficients of all four inks."""
    path = tmp_path / "inks.jpg"
    Image.fromarray(picture, "CMYK").save(path, quality=50, subsampling=0, progressive=progressive)
    assert peak_of(path, "cutout", ".png") < BOUND


def test_the_largest_still_whose_result_is_webp_stays_within_its_memory(tmp_path: Path) -> None:
    """Of noise, with an alpha: what its encoder needs the most memory for."""
    side = math.isqrt(WEBP_PIXELS)
    noise = np.random.default_rng(2).integers(0, 255, (side, side, 4), np.uint8)
    path = tmp_path / "noise.png"
    path.write_bytes(cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())
    assert peak_of(path, "cutout", ".webp") < BOUND


def peak_of(path: Path, mode: str, suffix: str) -> float:
    """Megabytes by which a process grows that serves the picture."""
    words = [sys.executable, "-c", WORK, path, mode, suffix]
    return float(subprocess.run(words, capture_output=True, text=True, timeout=600, check=True).stdout)
