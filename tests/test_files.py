"""`portrait process`: stills and videos, here and through a running service."""

import asyncio
import json
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from portrait.cli import main
from portrait.client import Client
from portrait.core.compositors import Options
from portrait.core.segmenters import Models
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Timestamp
from portrait.metrics import Metrics
from portrait.server.app import RunningService
from portrait.transports.files import Work, local_work, remote_work
from tests.films import SHOWN, read_video, times_of, write_video
from tests.people import Array, iou

COLOR = (0xC0, 0x40, 0x20)


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def room_is(frame: Array, color: tuple[int, int, int]) -> bool:
    return bool(np.abs(frame[:40, :40].reshape(-1, 3).mean(axis=0) - color).max() < 12)


def person_overlap(frame: Array, truth: Array) -> float:
    """IoU of what is not the background's colour with the true mask."""
    other = np.abs(frame.astype(int) - COLOR).max(axis=2) > 40
    return iou(truth, (255 * other).astype(np.uint8))


def test_a_video_keeps_its_frames_its_time_and_its_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(source)
    assert main(["process", str(source), str(target), "--mode", "color", "--color", "#2040c0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"frames": 20, "out": str(target)}
    frames = read_video(target)
    assert len(frames) == 20
    assert frames[0].shape == (240, 320, 3)
    assert all(room_is(frame, COLOR) for frame in frames)
    assert np.mean([person_overlap(f, m) for f, m in zip(frames, SHOWN.masks, strict=True)]) > 0.8
    assert sound_of(target) == sound_of(source)
    assert times_of(target) == pytest.approx(times_of(source), abs=1e-3)


def test_a_video_of_a_phone_comes_out_upright(tmp_path: Path) -> None:
    """Phones write pictures lying on the side and a matrix (ISO 14496-12, 8.3.2) that says how to turn them."""
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(source, turned=True, sound=False)
    data = bytearray(source.read_bytes())
    matrix = data.index(b"tkhd") + 44
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 240 * one, 0, 1 << 30)
    source.write_bytes(data)
    assert main(["process", str(source), str(target), "--mode", "color", "--color", "#2040c0", "--json"]) == 0
    frames = read_video(target)
    assert frames[0].shape == (240, 320, 3)
    assert np.mean([person_overlap(f, m) for f, m in zip(frames, SHOWN.masks, strict=True)]) > 0.8


def test_a_silent_video_stays_silent(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mkv"
    write_video(source, sound=False)
    assert main(["process", str(source), str(target), "--mode", "blur", "--json"]) == 0
    with av.open(str(target)) as after:
        assert [stream.type for stream in after.streams] == ["video"]


@pytest.mark.parametrize(
    ("name", "mode", "channels"), [("o.png", "cutout", 4), ("o.webp", "cutout", 4), ("o.jpg", "blur", 3)]
)
def test_a_still_is_processed_by_its_suffix(tmp_path: Path, name: str, mode: str, channels: int) -> None:
    source = tmp_path / "me.jpg"
    cv2.imwrite(str(source), SHOWN.frames[0])
    assert main(["process", str(source), str(tmp_path / name), "--mode", mode]) == 0
    result = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
    assert result is not None
    assert result.shape == (240, 320, channels)


def test_a_background_is_a_name_or_a_file(tmp_path: Path) -> None:
    source, picture = tmp_path / "me.png", tmp_path / "red.png"
    cv2.imwrite(str(source), SHOWN.frames[0])
    cv2.imwrite(str(picture), np.full((50, 50, 3), (0, 0, 255), np.uint8))
    for background, is_red in [(str(picture), True), ("dusk", False)]:
        target = tmp_path / "out.png"
        assert main(["process", str(source), str(target), "--mode", "image", "--background", background]) == 0
        assert room_is(np.asarray(cv2.imread(str(target)), np.uint8), (0, 0, 255)) == is_red


async def test_a_running_service_can_do_the_work(service: RunningService, tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(source)
    address = f"127.0.0.1:{service.grpc_port}"
    arguments = ["process", str(source), str(target), "--mode", "color", "--color", "#2040c0", "--json"]
    assert await asyncio.to_thread(main, [*arguments, "--server", address]) == 0
    frames = read_video(target)
    assert len(frames) == 20
    assert all(room_is(frame, COLOR) for frame in frames)
    assert sound_of(target) == sound_of(source)


async def test_a_running_service_gives_the_very_frames_a_pipeline_here_gives(
    service: RunningService, models: Models
) -> None:
    """Compared before they are encoded: x264 was seen to write other bytes for the same frames."""
    address = f"127.0.0.1:{service.grpc_port}"
    shown = [frame_from_bgr(picture, Timestamp(i, Fraction(1, 30)), i / 30) for i, picture in enumerate(SHOWN.frames)]

    def through(work: AbstractContextManager[Work]) -> list[Frame]:
        with work as opened:
            return list(opened(shown))

    here = await asyncio.to_thread(through, local_work(models.pick_video(), Options("color", "#2040c0"), Metrics()))
    there = await asyncio.to_thread(through, remote_work(Client(address), "", mode="color", color="#2040c0"))
    for one, other in zip(here, there, strict=True):
        assert one.timestamp == other.timestamp
        for plane in ("y", "u", "v"):
            assert np.array_equal(getattr(one, plane), getattr(other, plane))


@pytest.mark.parametrize(
    ("source", "target", "extra", "message"),
    [
        ("text.mp4", "o.mp4", [], "no video"),
        ("missing.mp4", "o.mp4", [], "no video"),
        ("text.png", "o.png", [], "got 5 bytes that are no picture"),
        ("me.png", "o.jpg", ["--mode", "cutout"], "o.jpg cannot hold the result; expected a name in .png or .webp"),
        ("me.png", "o.bmp", [], "o.bmp cannot hold the result; expected a name in .jpg"),
        ("me.png", "o.png", ["--mode", "image"], "got mode image without a background"),
        ("me.png", "o.png", ["--mode", "image", "--background", "moon"], "unknown background 'moon'"),
        ("me.png", "o.png", ["--color", "green"], "got 'green', expected #rrggbb"),
        ("me.png", "o.png", ["--model", "nope"], "'nope' is neither an embedded model"),
        ("in.mp4", "o.xyz", [], "cannot be written"),
        ("in.mp4", "o.mp4", ["--mode", "cutout"], "a video has no alpha"),
        ("in.mp4", "in.mp4", [], "is IN itself"),
        ("me.png", "o.png", ["--server", "http://localhost:50051"], "expected host:port"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, target: str, extra: list[str], message: str
) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "text.png").write_text("hello")
    cv2.imwrite(str(tmp_path / "me.png"), SHOWN.frames[0])
    write_video(tmp_path / "in.mp4", sound=False)
    assert main(["process", str(tmp_path / source), str(tmp_path / target), *extra]) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("portrait: ")
    assert message in error


async def test_a_running_service_gets_frames_ahead_of_its_replies(service: RunningService) -> None:
    """So the network's delay is not paid for each frame; and all of them come back, in their order."""
    taken: list[int] = []
    ahead: list[int] = []

    def frames() -> Iterator[Frame]:
        for i in range(30):
            taken.append(i)
            yield frame_from_bgr(SHOWN.frames[i % len(SHOWN.frames)], Timestamp(i, Fraction(1, 30)), i / 30)

    def through() -> list[int]:
        with remote_work(Client(f"127.0.0.1:{service.grpc_port}"), "", mode="blur") as work:
            found = []
            for result in work(frames()):
                found.append(result.timestamp.ticks)
                ahead.append(len(taken) - len(found))
            return found

    assert await asyncio.to_thread(through) == list(range(30))
    assert max(ahead) >= 1
