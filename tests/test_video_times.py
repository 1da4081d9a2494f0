"""`portrait process`: every picture at its own time, whatever times a source has and whatever a target can hold."""

from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import pytest

from portrait.cli import main
from portrait.errors import SegmentationFailed
from portrait.transports.files import Job, run
from tests.films import ffmpeg, needs_ffmpeg, times_of, write_at

GRID = [i / 30 for i in range(24)]
UNEVEN = {
    "one is missing": [at for i, at in enumerate(GRID) if i != 12],
    "30 a second, then 24": list(accumulate([0.0] + [1 / 30] * 10 + [1 / 24] * 10)),
    "rests": list(accumulate([0.0] + [1 / 60] * 8 + [0.5] * 2 + [1 / 60] * 8)),
    "a gap of ten minutes": [0.0, 1 / 30, 2 / 30, 600.0, 600.0 + 1 / 30],
    "240 a second": [i / 240 for i in range(24)],
}


def done(source: Path, target: Path) -> Path:
    assert main(["process", str(source), str(target), "--json"]) == 0
    return target


def rises(times: list[float]) -> bool:
    return all(before < after for before, after in pairwise(times))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
@pytest.mark.parametrize("times", UNEVEN.values(), ids=UNEVEN)
def test_every_picture_keeps_its_time(tmp_path: Path, times: list[float], suffix: str) -> None:
    found = times_of(done(write_at(tmp_path / "in.mp4", times), tmp_path / f"out{suffix}"))
    # MPEG-TS begins a moment after 0, by its buffer.
    assert [at - found[0] for at in found] == pytest.approx(times, abs=0.0011)
    assert rises(found)


@pytest.mark.parametrize("name", ["in.mkv", "in.webm", "in.avi", "in.mov"])
def test_every_container_can_be_the_source(tmp_path: Path, name: str) -> None:
    times = GRID if name == "in.avi" else UNEVEN["30 a second, then 24"]
    codec, base = ("libvpx" if name == "in.webm" else "mjpeg"), Fraction(1, 30 if name == "in.avi" else 1000)
    source = write_at(tmp_path / name, times, codec, base)
    assert times_of(done(source, tmp_path / "out.mp4")) == pytest.approx(times_of(source), abs=0.0011)


def test_doubled_times_are_pulled_apart(tmp_path: Path) -> None:
    """Two pictures with one time, again and again: the second comes a moment later, the next at its own time."""
    doubled = [at for at in GRID[::2] for _ in range(2)]
    source = write_at(tmp_path / "in.mkv", doubled, "mjpeg", Fraction(1, 1000))
    assert not rises(times_of(source))
    for suffix in (".mp4", ".mkv"):
        found = times_of(done(source, tmp_path / f"out{suffix}"))
        assert rises(found)
        assert found[::2] == pytest.approx(GRID[::2], abs=0.0011)
        assert len(found) == len(doubled)


def test_a_clock_that_starts_late_starts_at_0(tmp_path: Path) -> None:
    source = write_at(tmp_path / "in.mkv", [1000 + at for at in GRID], "mjpeg", Fraction(1, 1000))
    assert times_of(done(source, tmp_path / "out.mp4")) == pytest.approx(GRID, abs=0.0011)


@needs_ffmpeg
@pytest.mark.parametrize("late", ["0", "500"])
def test_where_a_clock_restarts_picture_and_sound_go_on(tmp_path: Path, late: str) -> None:
    """Two broadcasts in one file, the second with a clock before that of the first, by little or by much."""
    parts = []
    for name, offset in (("a.ts", late), ("b.ts", "0")):
        made = ["-f", "lavfi", "-i", "testsrc=s=160x120:d=1:r=25", "-f", "lavfi", "-i", "sine=d=1"]
        codecs = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-output_ts_offset", offset]
        ffmpeg(*made, *codecs, tmp_path / name)
        parts.append((tmp_path / name).read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    found = times_of(done(tmp_path / "in.ts", tmp_path / "out.mp4"))
    assert len(found) == 50
    assert rises(found)
    assert found[-1] - found[0] == pytest.approx(49 / 25, abs=0.15)
    with av.open(str(tmp_path / "out.mp4")) as container:
        heard = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.pts is not None]
    assert rises(heard)
    assert heard[-1] == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("times", [GRID, UNEVEN["rests"], UNEVEN["30 a second, then 24"]], ids=["even", "rests", "two"])
@pytest.mark.parametrize("suffix", [".y4m", ".avi"])
def test_a_container_without_times_gets_an_even_rate(tmp_path: Path, times: list[float], suffix: str) -> None:
    """So a second of the result lasts a second."""
    source = write_at(tmp_path / "in.mp4", times)
    found = times_of(done(source, tmp_path / f"out{suffix}"))
    steps = [after - before for before, after in pairwise(found)]
    assert max(steps) == pytest.approx(min(steps), abs=1e-6)
    assert min(steps) > 1 / 130
    assert found[-1] - found[0] == pytest.approx(times[-1], abs=0.05)


def test_what_the_work_dies_of_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    class Broken:
        def __enter__(self) -> "Broken":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __call__(self, _: object) -> None:
            raise self.error

    source = write_at(tmp_path / "in.mp4", GRID[:3])
    for error in (ValueError("injected"), SegmentationFailed("injected")):
        broken = Broken()
        broken.error = error  # type: ignore[attr-defined]
        with pytest.raises(type(error), match=r"^injected$"):
            run(Job(str(source), str(tmp_path / "out.mp4")), lambda _: broken, lambda *_: None)  # type: ignore[arg-type]  # noqa: B023
    assert not list(tmp_path.glob("*out*"))
