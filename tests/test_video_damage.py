"""`portrait process`: what is damaged costs itself, and is told."""

import json
from pathlib import Path

import av
import pytest

from portrait.cli import main
from tests.films import needs_ffmpeg, read_video, times_of, write_at

GRID = [i / 30 for i in range(30)]


def damage(path: Path, *numbers: int) -> None:
    """Zero the bytes of these packets."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packets[number].pos, packets[number].size) for number in numbers]
    data = bytearray(path.read_bytes())
    for at, size in places:
        assert at is not None
        data[at : at + size] = bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("numbers", [(12,), (12, 13, 25), (27,), (29,)], ids=str)
def test_a_damaged_packet_costs_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: tuple[int, ...]
) -> None:
    source, target = write_at(tmp_path / "in.mp4", GRID, gop_size=10), tmp_path / "out.mp4"
    damage(source, *numbers)
    assert main(["process", str(source), str(target), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert f"{len(numbers)} damaged packet" in said.err
    assert [note for note in report["notes"] if "damaged" in note]
    assert len(times_of(target)) == report["frames"] == len(GRID) - len(numbers)


@pytest.mark.parametrize("number", [0, 10])
def test_a_damaged_keyframe_costs_no_more_than_what_needs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    source, target = write_at(tmp_path / "in.mp4", GRID, gop_size=10), tmp_path / "out.mp4"
    damage(source, number)
    assert main(["process", str(source), str(target)]) == 0
    assert "damaged" in capsys.readouterr().err
    assert len(GRID) - 10 <= len(times_of(target)) < len(GRID)


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_file_that_was_cut_off_is_worked_on_as_far_as_it_goes(tmp_path: Path, suffix: str) -> None:
    source, target = write_at(tmp_path / f"in{suffix}", GRID), tmp_path / "out.mp4"
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    assert main(["process", str(source), str(target)]) == 0
    assert 0 < len(read_video(target)) < len(GRID)


def test_a_video_of_nothing_but_damage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_at(tmp_path / "in.mp4", GRID), tmp_path / "out.mp4"
    damage(source, *range(len(GRID)))
    assert main(["process", str(source), str(target)]) == 2
    assert "no picture could be decoded" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@needs_ffmpeg
def test_a_damaged_file_does_not_end_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    damage(write_at(tmp_path / "in" / "bad.mp4", GRID), 12)
    write_at(tmp_path / "in" / "good.mp4", GRID)
    assert main(["process", str(tmp_path / "in"), str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    rows = {Path(row["in"]).name: row for row in json.loads(said.out)["files"]}
    assert "notes" in rows["bad.mp4"]
    assert "notes" not in rows["good.mp4"]
    assert "bad.mp4: 1 damaged packet" in said.err
