"""`portrait process` beyond files: pipes, addresses, a service elsewhere, and what cannot be done."""

import asyncio
import json
import shlex
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.cli import main
from portrait.server.app import run_service
from portrait.settings import Settings
from tests.boxes import wait_for
from tests.credentials import TOKEN, Authority, authority, tokens
from tests.films import COMMAND, GREEN, SHOWN, folder, has_pictures, read_video, results, running, write_at
from tests.people import Array
from tests.ports import free_port

__all__ = ["authority", "folder", "tokens"]  # fixtures


@pytest.mark.parametrize(
    ("sources", "target", "message"),
    [
        (["in/one.jpg", "in/film.mp4"], "in/notes.txt", "is no folder; several results need one"),
        (["in"], "-", "is no folder"),
        (["-", "in"], "out", "- has no name; expected it alone"),
        (["rtsp://a/b", "in"], "rtmp://box/live", "several results need one, or an address with {name} in it"),
        (["empty"], "out", "holds no picture and no video"),
        (["in"], "in", "is IN itself"),
        (["in/one.jpg", "in/film.mp4"], "out", "a video has no alpha"),
        (["tcp://127.0.0.1:9"], "o.mp4", "no video"),
        (["/dev/video99"], "o.mp4", "no video"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sources: list[str],
    target: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    mode = "cutout" if "alpha" in message else "blur"
    assert main(["process", *sources, target, "--mode", mode]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert results(folder) == {"one.jpg", "deep/two.png", "film.mp4", "notes.txt"}


def y4m(frames: list[Array]) -> bytes:
    height, width = frames[0].shape[:2]
    parts = [f"YUV4MPEG2 W{width} H{height} F25:1 Ip C420jpeg\n".encode()]
    for frame in frames:
        parts += [b"FRAME\n", cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes()]
    return b"".join(parts)


def test_frames_come_and_go_through_pipes() -> None:
    """As in `ffmpeg ... -f yuv4mpegpipe - | portrait process - - | ffmpeg -i - ...`."""
    done = subprocess.run(
        [*COMMAND, "-", "-", *GREEN, "--json"], input=y4m(SHOWN.frames), capture_output=True, timeout=300, check=True
    )
    header, _, rest = done.stdout.partition(b"\n")
    assert header.startswith(b"YUV4MPEG2 W320 H240 F25:1")
    frame_bytes = len(b"FRAME\n") + 320 * 240 * 3 // 2
    assert len(rest) == 20 * frame_bytes
    luma = np.frombuffer(rest[len(b"FRAME\n") :][: 320 * 240], np.uint8).reshape(240, 320)
    assert abs(int(np.median(luma[:40, :40])) - 145) <= 2, "pure green has a luma of 145"
    assert json.loads(done.stderr.splitlines()[-1]) == {"frames": 20, "out": "-"}


def test_a_file_has_its_own_rate_in_a_pipe(tmp_path: Path) -> None:
    """So that the next program plays a second as a second."""
    for name, base in (("in.mp4", Fraction(1, 15_360)), ("in.mkv", Fraction(1, 1000)), ("in.ts", Fraction(1, 90_000))):
        source = write_at(tmp_path / name, [i / 30 for i in range(15)], time_base=base)
        done = subprocess.run([*COMMAND, source, "-"], capture_output=True, timeout=300, check=True)
        header, _, rest = done.stdout.partition(b"\n")
        assert b" F30:1 " in header
        assert rest.count(b"FRAME\n") == 15


def test_a_pipe_whose_reader_has_ended_ends_the_command(tmp_path: Path) -> None:
    """As SIGPIPE ends other programs: by its status, and without a word."""
    source = write_at(tmp_path / "in.mp4", [i / 30 for i in range(30)])
    with running(*COMMAND, source, "-") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=300) == 141
        assert process.stderr is not None
        assert "portrait:" not in process.stderr.read()


@pytest.mark.parametrize(("closed", "message"), [("<&-", "IN: standard input is"), (">&-", "OUT: standard output is")])
def test_a_pipe_that_is_closed_from_the_start_is_told(tmp_path: Path, closed: str, message: str) -> None:
    source = "-" if closed == "<&-" else str(write_at(tmp_path / "in.mp4", [0.0, 0.1]))
    target = str(tmp_path / "out.mp4") if closed == "<&-" else "-"
    command = f"{shlex.join([*COMMAND, source, target])} {closed}"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_pipe_becomes_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    subprocess.run([*COMMAND, "-", str(target), *GREEN], input=y4m(SHOWN.frames), check=True, timeout=300)
    assert len(read_video(target)) == 20


def test_an_address_is_recorded_until_an_interrupt(folder: Path, tmp_path: Path) -> None:
    url, target = f"tcp://127.0.0.1:{free_port()}?listen=1", tmp_path / "out.mp4"
    camera = subprocess.Popen([sys.executable, Path(__file__).with_name("camera_peer.py"), url, folder / "one.jpg"])
    process = None
    try:
        process = connected(url.partition("?")[0], target)
        wait_for(lambda: has_pictures(tmp_path / ".out.part.mp4") or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=300)
    finally:
        for each in (camera, process):
            if each is not None:
                each.kill()
                each.wait()
    assert process.returncode == 0, said
    assert len(read_video(target)) == json.loads(out)["frames"] > 0


def connected(url: str, target: Path) -> subprocess.Popen[str]:
    """A recording of what the camera sends; tried again while it does not listen yet."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        process = subprocess.Popen(
            [*COMMAND, url, str(target), *GREEN, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        part = target.with_name(".out.part.mp4")
        wait_for(lambda: part.exists() or process.poll() is not None)  # noqa: B023  waited for here
        if process.poll() is None:
            return process
        assert "refused" in process.communicate()[1]
    raise AssertionError(f"nobody listens at {url}")


async def test_a_secured_service_does_the_work_for_who_has_its_token(
    folder: Path, tmp_path: Path, settings: Settings, tokens: Path, authority: Authority
) -> None:
    certificate, key = authority.issue(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    files = {"tls_certificate": certificate, "tls_key": key, "tokens": tokens}
    async with run_service(settings.model_copy(update=files)) as running:
        source, target = folder / "one.jpg", tmp_path / "out.png"
        command = ["process", str(source), str(target), "--server", f"localhost:{running.grpc_port}"]
        secrets = ["--server-ca", str(tmp_path / "ca.pem"), "--server-token", str(tmp_path / "token")]
        assert await asyncio.to_thread(main, command + secrets[:2]) == 2
        assert not target.exists()
        assert await asyncio.to_thread(main, command + secrets) == 0
        assert target.exists()
