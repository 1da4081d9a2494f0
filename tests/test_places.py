"""`portrait process` beyond one file: folders, several inputs, interrupts, pipes and addresses."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from portrait.app import run_service
from portrait.cli import main
from portrait.settings import Settings
from tests.credentials import TOKEN, Authority, authority, tokens
from tests.people import Array, clip
from tests.test_files import SHOWN, read_video, write_video

__all__ = ["authority", "tokens"]  # fixtures

COMMAND = [sys.executable, "-m", "portrait", "process"]
GREEN = ["--mode", "color", "--color", "#00ff00"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stills, one of them below, a video, and what is neither."""
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    cv2.imwrite(str(source / "one.jpg"), SHOWN.frames[0])
    cv2.imwrite(str(source / "deep" / "two.png"), clip(320, 240, 1, number=3).frames[0])
    write_video(source / "film.mp4", sound=False)
    (source / "notes.txt").write_text("hello")
    return source


def results(target: Path) -> set[str]:
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_folder_becomes_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out"
    assert main(["process", str(folder), str(target), *GREEN, "--json"]) == 0
    assert results(target) == {"one.jpg", "deep/two.png", "film.mp4"}
    told = report(capsys)
    assert told["frames"] == 22
    assert len(read_video(target / "film.mp4")) == 20


def test_no_file_knows_of_the_one_before_it(folder: Path, tmp_path: Path) -> None:
    """Stills of one size would hand their masks on if they shared a prior."""
    alone = tmp_path / "alone.png"
    assert main(["process", str(folder / "deep" / "two.png"), str(alone), *GREEN]) == 0
    cv2.imwrite(str(folder / "deep" / "first.png"), SHOWN.frames[0])
    assert main(["process", str(folder), str(tmp_path / "out"), *GREEN]) == 0
    together = tmp_path / "out" / "deep" / "two.png"
    assert np.array_equal(cv2.imread(str(alone)), cv2.imread(str(together)))


def test_several_inputs_go_into_one_folder(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    inputs = [str(folder / "one.jpg"), str(folder / "deep")]
    assert main(["process", *inputs, str(target), "--mode", "cutout"]) == 0
    assert results(target) == {"one.png", "two.png"}


def test_a_bad_file_costs_itself_only(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.png").write_text("hello")
    target = tmp_path / "out"
    assert main(["process", str(folder), str(target), *GREEN, "--json"]) == 1
    assert results(target) == {"one.jpg", "deep/two.png", "film.mp4"}
    said = capsys.readouterr()
    assert "bad.png: image: 5 bytes that are no picture" in said.err
    rows = {Path(row["in"]).name: row for row in json.loads(said.out)["files"]}
    assert "no picture" in rows["bad.png"]["error"]
    assert rows["film.mp4"]["frames"] == 20


def test_an_interrupt_leaves_nothing_half_done_and_resume_does_the_rest(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with av.open(str(folder / "long.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        frame = av.VideoFrame.from_ndarray(SHOWN.frames[0], format="bgr24")
        for i in range(3000):
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    command = [*COMMAND, str(folder), str(target), *GREEN, "--resume", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(target.rglob(".long.part.mp4")):  # it has begun
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    done = results(target)
    assert "film.mp4" in done
    assert not any(".part" in name or "long" in name for name in done)

    (folder / "long.mp4").unlink()
    before = {name: (target / name).stat().st_mtime_ns for name in done}
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert results(target) == {"one.jpg", "deep/two.png", "film.mp4"}
    assert {name: (target / name).stat().st_mtime_ns for name in done} == before
    skipped = {Path(row["in"]).name for row in json.loads(again.stdout)["files"] if row.get("skipped")}
    assert skipped == {Path(name).name for name in done}


@pytest.mark.parametrize(
    ("sources", "target", "message"),
    [
        (["in", "in/one.jpg"], "o.png", "would both become"),
        (["in/one.jpg", "in/film.mp4"], "in/notes.txt", "is no folder; several results need one"),
        (["in"], "-", "is no folder"),
        (["-", "in"], "out", "- has no end; expected it alone"),
        (["rtsp://localhost/a", "in"], "out", "has no end; expected it alone"),
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
        [*COMMAND, "-", "-", *GREEN, "--json"], input=y4m(SHOWN.frames), capture_output=True, timeout=60, check=True
    )
    header, _, rest = done.stdout.partition(b"\n")
    assert header.startswith(b"YUV4MPEG2 W320 H240 F25:1")
    frame_bytes = len(b"FRAME\n") + 320 * 240 * 3 // 2
    assert len(rest) == 20 * frame_bytes
    luma = np.frombuffer(rest[len(b"FRAME\n") :][: 320 * 240], np.uint8).reshape(240, 320)
    assert abs(int(np.median(luma[:40, :40])) - 145) <= 2, "pure green has a luma of 145"
    assert json.loads(done.stderr.splitlines()[-1]) == {"frames": 20, "out": "-"}


def test_a_pipe_becomes_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    subprocess.run([*COMMAND, "-", str(target), *GREEN], input=y4m(SHOWN.frames), check=True, timeout=60)
    assert len(read_video(target)) == 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_an_address_is_recorded_until_an_interrupt(folder: Path, tmp_path: Path) -> None:
    url, target = f"tcp://127.0.0.1:{free_port()}?listen=1", tmp_path / "out.mp4"
    camera = subprocess.Popen([sys.executable, Path(__file__).with_name("camera_peer.py"), url, folder / "one.jpg"])
    process = None
    try:
        process = connected(url.partition("?")[0], target)
        wait(lambda: size_of(tmp_path / ".out.part.mp4") > 0 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
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
        wait(lambda: part.exists() or process.poll() is not None)  # noqa: B023  waited for here
        if process.poll() is None:
            return process
        assert "refused" in process.communicate()[1]
    raise AssertionError(f"nobody listens at {url}")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


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
