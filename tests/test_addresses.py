"""`portrait process` from and to addresses: RTSP from GStreamer's server, RTMP from and to the ffmpeg command."""

import json
import signal
import subprocess
import time
from pathlib import Path

import av
import pytest

from portrait.cli import main
from tests.boxes import wait_for
from tests.films import (
    COMMAND,
    FFMPEG,
    GREEN,
    film,
    has_pictures,
    is_green,
    needs_ffmpeg,
    needs_gstreamer,
    read_video,
    rtsp_camera,
    running,
)
from tests.ports import free_port


@needs_gstreamer
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_camera_over_rtsp_is_recorded_until_an_interrupt(tmp_path: Path, stop: signal.Signals) -> None:
    source, target = film(tmp_path / "film.mp4", 60), tmp_path / "out.mp4"
    with rtsp_camera(source) as url, running(*COMMAND, url, target, *GREEN, "--json") as recording:
        wait_for(lambda: has_pictures(tmp_path / ".out.part.mp4") or recording.poll() is not None)
        recording.send_signal(stop)
        out, said = recording.communicate(timeout=300)
    assert recording.returncode == 0, said
    frames = read_video(target)
    assert len(frames) == json.loads(out)["frames"] > 0
    assert all(is_green(frame) for frame in frames)


@needs_gstreamer
@pytest.mark.parametrize(("sound", "suffix"), [("alaw", ".mkv"), ("mulaw", ".mp4")])
def test_a_camera_with_sound_in_g711_is_recorded(tmp_path: Path, sound: str, suffix: str) -> None:
    """As most cameras have it; neither container takes it as it is. The camera ends by itself."""
    target = tmp_path / f"out{suffix}"
    with rtsp_camera(film(tmp_path / "film.mp4", 3), sound) as url:
        command = [*COMMAND, url, str(target), *GREEN, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert f"pcm_{sound} is encoded as aac" in report["notes"][0]
    assert len(read_video(target)) == report["frames"] > 0
    with av.open(str(target)) as container:
        assert [packet for packet in container.demux(audio=0) if packet.size]


@needs_ffmpeg
def test_a_source_over_rtmp_that_ends_is_written_whole(tmp_path: Path) -> None:
    source, target = film(tmp_path / "film.mp4", 3), tmp_path / "out.mp4"
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 0:
            report: dict[str, int] = json.loads(done.stdout)
            return report
        assert "refused" in done.stderr
    raise AssertionError(f"nobody listens at {url}")


@needs_ffmpeg
def test_a_result_goes_out_over_rtmp(tmp_path: Path) -> None:
    source, received = film(tmp_path / "film.mp4", 3), tmp_path / "received.flv"
    url = f"rtmp://127.0.0.1:{free_port()}/live/room"
    with running(FFMPEG, "-v", "error", "-listen", "1", "-i", url, "-c", "copy", "-y", received) as listener:
        wait_for(lambda: sent(source, url))
        listener.wait(timeout=300)
    frames = read_video(received)
    assert len(frames) == 60
    assert all(is_green(frame) for frame in frames)
    with av.open(str(received)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert any(keys[1:]), "a viewer who joins at a media server waits for the next key frame"


def sent(source: Path, url: str) -> bool:
    command = [*COMMAND, str(source), url, *GREEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
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
    assert len(read_video(target)) == 20


def test_a_file_that_ends_in_the_middle_is_told_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = film(tmp_path / "film.mp4", 4), tmp_path / "out.mp4"
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert main(["process", str(source), str(target), *GREEN]) == 2
    assert "film.mp4" in capsys.readouterr().err
    assert not target.exists()
