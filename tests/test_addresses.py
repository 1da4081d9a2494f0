"""`portrait process` from and to addresses: RTSP from GStreamer's server, RTMP from and to the ffmpeg command."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from portrait.cli import main
from tests.people import Array, clip
from tests.test_files import read_video
from tests.test_places import COMMAND, GREEN, free_port, size_of, wait

SHOWN = clip(320, 240, 30)
FFMPEG = shutil.which("ffmpeg")
GSTREAMER = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"

needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed: run make media-packages")


def has_gstreamer() -> bool:
    """The system's Python has GStreamer's RTSP server."""
    python = "/usr/bin/python3"
    return Path(python).exists() and not subprocess.run([python, "-c", GSTREAMER], capture_output=True).returncode


def film(path: Path, times: int) -> Path:
    """The clip so many times in a row, with a key frame every ten: whoever joins late sees something soon."""
    options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": "10"}
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options=options)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for i in range(times * len(SHOWN.frames)):
            frame = av.VideoFrame.from_ndarray(SHOWN.frames[i % len(SHOWN.frames)], format="bgr24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_green(frame: Array) -> bool:
    """Its corner is what mode color makes of the room."""
    return bool(np.abs(frame[:20, :20].reshape(-1, 3).mean(axis=0) - (0, 255, 0)).max() < 12)


@pytest.mark.skipif(not has_gstreamer(), reason="GStreamer's RTSP server is not installed: run make media-packages")
def test_a_camera_over_rtsp_is_recorded_until_an_interrupt(tmp_path: Path) -> None:
    source, target = film(tmp_path / "film.mp4", 60), tmp_path / "out.mp4"
    with running("/usr/bin/python3", Path(__file__).with_name("rtsp_peer.py"), source) as camera:
        assert camera.stdout is not None
        url = camera.stdout.readline().strip()
        with running(*COMMAND, url, target, *GREEN, "--json") as recording:
            wait(lambda: size_of(tmp_path / ".out.part.mp4") > 0 or recording.poll() is not None)
            recording.send_signal(signal.SIGINT)
            out, said = recording.communicate(timeout=30)
    assert recording.returncode == 0, said
    frames = read_video(target)
    assert len(frames) == json.loads(out)["frames"] > 0
    assert all(is_green(frame) for frame in frames)


@needs_ffmpeg
def test_a_source_over_rtmp_that_ends_is_written_whole(tmp_path: Path) -> None:
    source, target = film(tmp_path / "film.mp4", 2), tmp_path / "out.mp4"
    url = f"rtmp://127.0.0.1:{free_port()}/live/room"
    with running(FFMPEG, "-v", "error", "-re", "-i", source, "-c", "copy", "-f", "flv", "-listen", "1", url):
        done = recorded(url, target)
    assert len(read_video(target)) == done["frames"] > 50
    assert all(is_green(frame) for frame in read_video(target))


def recorded(url: str, target: Path) -> dict[str, int]:
    """The report of a recording; tried again while nobody listens yet."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        command = [*COMMAND, url, str(target), *GREEN, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            report: dict[str, int] = json.loads(done.stdout)
            return report
        assert "refused" in done.stderr
    raise AssertionError(f"nobody listens at {url}")


@needs_ffmpeg
def test_a_result_goes_out_over_rtmp(tmp_path: Path) -> None:
    source, received = film(tmp_path / "film.mp4", 2), tmp_path / "received.flv"
    url = f"rtmp://127.0.0.1:{free_port()}/live/room"
    with running(FFMPEG, "-v", "error", "-listen", "1", "-i", url, "-c", "copy", "-y", received) as listener:
        wait(lambda: sent(source, url))
        listener.wait(timeout=30)
    frames = read_video(received)
    assert len(frames) == 60
    assert all(is_green(frame) for frame in frames)


def sent(source: Path, url: str) -> bool:
    command = [*COMMAND, str(source), url, *GREEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or "refused" in done.stderr, done.stderr
    return done.returncode == 0


def test_bare_h264_without_times_is_a_video(tmp_path: Path) -> None:
    source, target = tmp_path / "bare.h264", tmp_path / "out.mp4"
    with av.open(str(film(tmp_path / "film.mp4", 1))) as whole, av.open(str(source), "w", format="h264") as bare:
        stream = bare.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                bare.mux(packet)
    assert main(["process", str(source), str(target), *GREEN]) == 0
    assert len(read_video(target)) == 30


def test_a_file_that_ends_in_the_middle_is_told_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = film(tmp_path / "film.mp4", 4), tmp_path / "out.mp4"
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert main(["process", str(source), str(target), *GREEN]) == 2
    assert "film.mp4" in capsys.readouterr().err
    assert not target.exists()
