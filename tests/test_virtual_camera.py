"""`portrait process IN /dev/videoN`: FFmpeg's own V4L2 output, before a file that stands for the kernel's device."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from portrait.cli import main
from tests.films import COMMAND, GREEN, SHOWN, write_video
from tests.people import Array

DEVICE = "/dev/video42"
OUTPUT = 2
"""V4L2_BUF_TYPE_VIDEO_OUTPUT."""


def into_camera(folder: Path, *arguments: str) -> tuple[str, list[Array], list[float]]:
    """What the device's format was set to, the frames it got as (H*3/2, W) of I420, and when each came, in seconds."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed (make system-packages)")
    library, device = folder / "v4l2.so", folder / "device"
    source = Path(__file__).parent / "v4l2.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "V4L2_FILE": str(device)}
    done = subprocess.run(
        [*COMMAND, *arguments, DEVICE], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    height, width = SHOWN.frames[0].shape[:2]
    frames = np.fromfile(device, np.uint8).reshape(-1, height * 3 // 2, width)
    times = [float(line) for line in device.with_suffix(".times").read_text().splitlines()]
    return device.with_suffix(".format").read_text(), list(frames), times


def test_a_film_comes_out_of_a_virtual_camera_at_its_own_speed(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4")
    set_to, frames, times = into_camera(tmp_path, str(tmp_path / "in.mp4"), *GREEN)
    assert set_to.split() == ["YU12", "320", "240", str(OUTPUT)]
    assert len(frames) == len(times) == len(SHOWN.frames)
    # Green behind the person, in every frame whole.
    for frame in frames:
        assert abs(int(frame[:40, :40].mean()) - 145) < 6
    # Nobody who does not wait takes half of it; a busy machine may be late with the first.
    assert times[-1] - times[0] > 0.5 * (len(SHOWN.frames) - 1) / 25


def test_a_camera_that_is_not_there_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "in.mp4")
    assert main(["process", str(tmp_path / "in.mp4"), "/dev/video987", *GREEN]) == 2
    assert "OUT: /dev/video987: cannot be written" in capsys.readouterr().err
