"""`portrait process` with several inputs: folders, files, cameras; each for itself, several at once."""

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from portrait.cli import main
from portrait.image.frame import Frame
from portrait.server.app import RunningService
from portrait.transports.files import Batch, Job, Progress, Work, keep_recordings, plan
from tests.boxes import wait_for
from tests.films import (
    COMMAND,
    GREEN,
    SHOWN,
    film,
    folder,
    has_pictures,
    is_green,
    needs_gstreamer,
    read_video,
    results,
    rtsp_camera,
    running,
)
from tests.ports import free_port

__all__ = ["folder"]  # a fixture


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
    assert "bad.png: image: got 5 bytes that are no picture" in said.err
    rows = {Path(row["in"]).name: row for row in json.loads(said.out)["files"]}
    assert "no picture" in rows["bad.png"]["error"]
    assert rows["film.mp4"]["frames"] == 20


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_half_done_and_resume_does_the_rest(
    folder: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    film(folder / "long.mp4", 120)
    film(folder / "longer.mp4", 120)
    target = tmp_path / "out"
    command = [*COMMAND, folder, target, *GREEN, "--resume", "--json", "--jobs", "2"]
    with running(*command) as process:
        wait_for(lambda: {"film.mp4", ".longer.part.mp4"} <= results(target) or process.poll() is not None)
        process.send_signal(stop)
        out, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    rows = by_name(json.loads(out)["files"])
    assert rows["longer.mp4"]["interrupted"]
    assert rows["film.mp4"]["frames"] == 20
    done = results(target)
    assert done == {Path(row["out"]).relative_to(target).as_posix() for row in rows.values() if row["frames"]}
    assert "longer.mp4" not in done

    for name in ("long.mp4", "longer.mp4"):
        (folder / name).unlink()
    before = {name: (target / name).stat().st_mtime_ns for name in done}
    again = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    assert results(target) == {"one.jpg", "deep/two.png", "film.mp4"} | done
    assert {name: (target / name).stat().st_mtime_ns for name in done} == before
    skipped = {name for name, row in by_name(json.loads(again.stdout)["files"]).items() if row.get("skipped")}
    assert skipped == {Path(name).name for name in done} - {"long.mp4"}


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {Path(row["in"]).name: row for row in rows}


@needs_gstreamer
def test_cameras_are_recorded_at_once_beside_files_and_a_dead_one_costs_itself_only(
    folder: Path, tmp_path: Path
) -> None:
    """With one job at a time: cameras do not wait for each other, and files go on beside them."""
    target, dead = tmp_path / "out", f"rtsp://user:secret@127.0.0.1:{free_port()}/gone"
    shown = film(tmp_path / "shown.mp4", 60)
    with rtsp_camera(shown) as one, rtsp_camera(shown) as two:
        cameras = [one.replace("://", "://user:secret@"), two]
        command = [*COMMAND, folder, *cameras, dead, target, *GREEN, "--resume", "--json", "--jobs", "1"]
        names = [f"127.0.0.1-{url.rpartition(':')[2].replace('/', '-')}" for url in (one, two)]
        for _ in range(2):
            with running(*command) as recording:
                parts = [part for name in names for part in (name, f"{name}-2")]
                wait_for(
                    lambda: (
                        (
                            sum(has_pictures(target / f".{part}.part.mkv") for part in parts) == 2  # noqa: B023
                            and (target / "film.mp4").exists()
                        )
                        or recording.poll() is not None
                    )
                )
                recording.send_signal(signal.SIGINT)
                out, said = recording.communicate(timeout=300)
            assert recording.returncode == 1, said
            assert "Connection refused" in said
    recorded = {f"{part}.mkv" for part in parts}
    assert results(target) == {"one.jpg", "deep/two.png", "film.mp4"} | recorded
    for name in recorded:
        frames = read_video(target / name)
        assert frames
        assert all(is_green(frame) for frame in frames)
    rows = {row["out"]: row for row in json.loads(out)["files"]}
    assert {rows[str(target / f"{name}-2.mkv")]["frames"] > 0 for name in names} == {True}
    assert rows[str(target / "film.mp4")]["skipped"]
    assert [row["in"] for row in rows.values() if "error" in row] == [dead.replace("user:secret@", "")]
    assert "secret" not in out + said


@contextmanager
def unwatched(_: Job) -> Iterator[Progress]:
    yield lambda *_: None


def stills(tmp_path: Path, count: int) -> list[Job]:
    for i in range(count):
        cv2.imwrite(str(tmp_path / f"{i}.png"), SHOWN.frames[0])
    return [Job(str(tmp_path / f"{i}.png"), str(tmp_path / "out" / f"{i}.png")) for i in range(count)]


def test_as_many_run_at_once_as_may(tmp_path: Path) -> None:
    meeting, inside, most = threading.Barrier(3, timeout=300), threading.Semaphore(3), []

    @contextmanager
    def opening(_: Job) -> Iterator[Work]:
        def compose(frame: Frame) -> Frame:
            most.append(inside.acquire(blocking=False))
            meeting.wait()  # nobody goes on before three are here
            inside.release()
            return frame

        yield lambda frames: map(compose, frames)

    outcomes = Batch(opening, unwatched, at_once=3, resume=False).run(stills(tmp_path, 9))
    assert [outcome.frames for outcome in outcomes] == [1] * 9
    assert most == [True] * 9, "a fourth came in"


def test_what_one_dies_of_is_its_own_outcome(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobs = stills(tmp_path, 5)
    Path(jobs[3].source).unlink()
    opened = []

    @contextmanager
    def opening(_: Job) -> Iterator[Work]:
        opened.append(opening)
        if len(opened) == 2:
            raise ZeroDivisionError("injected")
        yield iter

    outcomes = Batch(opening, unwatched, at_once=1, resume=False).run(jobs)
    assert [outcome.frames for outcome in outcomes] == [1, 0, 1, 0, 1]
    assert outcomes[1].error == "ZeroDivisionError: injected"
    assert "No such file" in outcomes[3].error
    assert "Traceback" in caplog.text, "an error nobody expected is told whole"
    assert results(tmp_path / "out") == {"0.png", "2.png", "4.png"}


async def test_several_streams_of_a_running_service_do_the_work(
    service: RunningService, folder: Path, tmp_path: Path
) -> None:
    film(folder / "other.mp4", 1)
    target = tmp_path / "out"
    command = ["process", str(folder), str(target), *GREEN, "--jobs", "4"]
    assert await asyncio.to_thread(main, [*command, "--server", f"127.0.0.1:{service.grpc_port}"]) == 0
    assert results(target) == {"one.jpg", "deep/two.png", "film.mp4", "other.mp4"}
    assert all(is_green(frame) for name in ("film", "other") for frame in read_video(target / f"{name}.mp4"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rtsp://user:secret@cam/stream", "cam-stream.mkv"),
        ("rtsp://cam:8554/cam/realmonitor?channel=1&subtype=0", "cam-8554-cam-realmonitor-channel-1-subtype-0.mkv"),
        ("rtsp://[fe80::1]:554/", "fe80-1-554.mkv"),
        ("/dev/video0", "video0.mkv"),
        ("/dev/v4l/by-id/usb-A_Camera-index0", "v4l-by-id-usb-A_Camera-index0.mkv"),
        ("film.webm", "film.mp4"),
    ],
)
def test_every_source_has_a_name_of_its_own(tmp_path: Path, source: str, name: str) -> None:
    jobs = plan([source, "other.mp4"], str(tmp_path), "blur")
    assert [job.target for job in jobs] == [str(tmp_path / name), str(tmp_path / "other.mp4")]


def test_several_results_go_to_addresses_of_their_own() -> None:
    jobs = plan(["rtsp://cam/a", "door.mp4"], "rtmp://box/live/{name}", "blur")
    assert [job.target for job in jobs] == ["rtmp://box/live/cam-a", "rtmp://box/live/door"]


def test_recordings_go_on_beside_what_is(tmp_path: Path) -> None:
    (tmp_path / "cam.mkv").touch()
    (tmp_path / "film.mp4").touch()
    jobs = keep_recordings(plan(["rtsp://cam", "rtsp://cam-2", "rtsp://new", "film.mp4"], str(tmp_path), "blur"))
    assert [Path(job.target).name for job in jobs] == ["cam-2.mkv", "cam-2-2.mkv", "new.mkv", "film.mp4"]
    assert keep_recordings([Job("rtsp://cam", "rtmp://box/live")]) == [Job("rtsp://cam", "rtmp://box/live")]
