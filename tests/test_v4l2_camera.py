"""`--camera NAME=v4l2:/dev/videoN`: FFmpeg's own V4L2 input, before a file that stands for the kernel's device."""

import json
import shutil
import subprocess
import urllib.request
from contextlib import aclosing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from portrait.client import Client, ClientError
from tests.boxes import serving, wait_for
from tests.people import Array, clip

DEVICE = "/dev/video42"


def yuyv(picture: Array) -> bytes:
    """A picture in BGR as most webcams send it: every second column has colour."""
    y, u, v = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV))
    packed = np.empty((*y.shape, 2), np.uint8)
    packed[..., 0], packed[:, ::2, 1], packed[:, 1::2, 1] = y, u[:, ::2], v[:, ::2]
    return packed.tobytes()


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that stands for the device; while it is away, so is the device."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed (make system-packages)")
    library, device = tmp_path / "v4l2_camera.so", tmp_path / "device"
    source = Path(__file__).with_name("v4l2_camera.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    device.write_bytes(b"".join(map(yuyv, clip(320, 240, 4).frames)))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("V4L2_FILE", str(device))
    return device


async def test_a_camera_of_this_machine_is_watched_unplugged_and_plugged_in_again(plugged: Path) -> None:
    with serving("--workers", "1", "--camera", f"desk=v4l2:{DEVICE}", stderr=subprocess.DEVNULL) as (_, announced):

        def desk() -> dict[str, Any]:
            with urllib.request.urlopen(f"{announced['page']}v1/cameras", timeout=60) as response:
                [camera] = json.load(response)
            return dict(camera)

        assert (desk()["state"], desk()["address"]) == ("idle", f"v4l2:{DEVICE}")
        async with Client(announced["grpc"]) as client, aclosing(client.watch("desk")) as results:
            masks = [await anext(results) for _ in range(10)]
            assert max(float((mask.array > 127).mean()) for mask in masks) > 0.05
            assert (masks[-1].timestamp_us - masks[0].timestamp_us) / 1e6 > 0.3, "the device's own times"
            assert desk()["words"] == "rawvideo 320x240"
            plugged.rename(plugged.with_suffix(".away"))
            words: list[str] = []
            wait_for(lambda: words.append(desk()["words"]) or "there is no such device" in words)
            assert "the device has been unplugged" in words
            plugged.with_suffix(".away").rename(plugged)
            wait_for(lambda: desk()["state"] == "live")
            assert (await anext(results)).timestamp_us > masks[-1].timestamp_us


async def test_a_device_that_is_not_there_is_said_in_words() -> None:
    with serving("--workers", "1", "--camera", "gone=v4l2:/dev/video987", stderr=subprocess.DEVNULL) as (_, announced):
        async with Client(announced["grpc"]) as client:
            with pytest.raises(ClientError, match="camera 'gone': there is no such device"):
                await anext(client.watch("gone"))
