"""`portrait process`: what a video says beside its pixels goes along, and colours are shown as they were."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from portrait.cli import main
from tests.films import ffmpeg, needs_ffmpeg, write_at, write_video

GREEN = (0, 177, 64)
GRID = [i / 30 for i in range(15)]
SHARES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Of red and blue in luma, by FFmpeg's number of the matrix (ITU-T H.273, 8.3)."""


def done(source: Path, target: Path, *options: str) -> Path:
    assert main(["process", str(source), str(target), "--json", *options]) == 0
    return target


def first(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def looks(path: Path) -> tuple[int, int, int, int]:
    frame = first(path)
    return frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc


def shown(frame: av.VideoFrame, part: tuple[slice, slice] = (slice(4, 24), slice(4, 24))) -> NDArray[np.float64]:
    """The mean red, green and blue of a part, as a player computes them from the tags."""
    red, blue = SHARES[frame.colorspace if frame.colorspace in SHARES else 1 if frame.height >= 720 else 6]
    full = int(frame.color_range) == 2
    rows, columns = part
    half = tuple(slice(each.start // 2, each.stop // 2) for each in part)
    planes = [np.frombuffer(memoryview(p), np.uint8).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
    y, u, v = planes[0][rows, columns].mean(), planes[1][half].mean(), planes[2][half].mean()
    y = y / 255 if full else (y - 16) / 219
    u, v = (u - 128) / (255 if full else 224), (v - 128) / (255 if full else 224)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return 255 * np.clip((r, (y - red * r - blue * b) / (1 - red - blue), b), 0, 1)


@pytest.mark.parametrize(
    ("height", "tags"),
    [(720, (1, 1, 1, 1)), (720, (6, 1, 6, 6)), (240, (1, 1, 1, 1)), (240, (5, 1, 5, 6)), (240, (1, 2, 1, 13))],
    ids=["HD", "BT.601 in HD", "BT.709 in SD", "PAL", "full range"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_are_composed_and_tagged_as_the_source_says(
    tmp_path: Path, height: int, tags: tuple[int, int, int, int], suffix: str
) -> None:
    names = ("colorspace", "color_range", "color_primaries", "color_trc")
    source = write_at(tmp_path / "in.mp4", [0, 1 / 30], width=320, height=height, **dict(zip(names, tags, strict=True)))
    target = done(source, tmp_path / f"out{suffix}", "--mode", "color", "--color", "#00b140")
    assert looks(target) == looks(source) == tags
    assert shown(first(target)) == pytest.approx(GREEN, abs=5)


@pytest.mark.parametrize(("height", "matrix"), [(720, 1), (240, 6)])
def test_a_video_without_tags_is_what_players_assume(tmp_path: Path, height: int, matrix: int) -> None:
    source = write_at(tmp_path / "in.mp4", [0, 1 / 30], width=320, height=height)
    target = done(source, tmp_path / "out.mp4", "--mode", "color", "--color", "#00b140")
    assert looks(target)[0] == matrix
    assert shown(first(target)) == pytest.approx(GREEN, abs=5)


BARS = (20, 60, 200, 240)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.mp4", ["-vf", "scale=out_range=pc,format=yuv420p", "-c:v", "libx264", "-color_range", "pc"]),
        ("in.avi", ["-vf", "scale=out_range=pc,format=yuvj422p", "-c:v", "mjpeg", "-q:v", "1"]),
        ("in.webm", ["-vf", "scale=out_range=pc,format=yuv420p", "-c:v", "libvpx-vp9", "-color_range", "pc"]),
        ("in.mkv", ["-vf", "format=yuv444p", "-c:v", "libx264"]),
        ("in.mov", ["-c:v", "qtrle"]),
        ("in.mkv", ["-vf", "format=gray", "-c:v", "ffv1"]),
    ],
    ids=["full H.264", "MJPEG", "full VP9", "4:4:4", "RGB", "grey"],
)
def test_greys_are_shown_as_before(tmp_path: Path, name: str, options: list[str]) -> None:
    bars = np.repeat(np.array(BARS, np.uint8), 80)
    (tmp_path / "raw").write_bytes(np.broadcast_to(bars[None, :, None], (120, 320, 3)).tobytes() * 3)
    ffmpeg("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "320x120", "-i", tmp_path / "raw", *options, tmp_path / name)
    frame = first(done(tmp_path / name, tmp_path / "out.mp4"))
    found = [shown(frame, (slice(20, 100), slice(80 * i + 30, 80 * i + 50)))[1] for i in range(4)]
    assert found == pytest.approx(BARS, abs=4)


@needs_ffmpeg
@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_becomes_a_picture_of_standard_range(tmp_path: Path, transfer: str) -> None:
    source = tmp_path / "in.mp4"
    kind = f"log-level=error:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    grey = ["-f", "lavfi", "-i", "color=gray:s=160x120:d=0.1", "-vf", "scale=out_color_matrix=bt2020"]
    ffmpeg(*grey, "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", kind, "-color_trc", transfer, source)
    frame = first(done(source, tmp_path / "out.mp4"))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
    red, green, blue = shown(frame)
    assert max(red, green, blue) - min(red, green, blue) < 4, "grey stays grey"
    assert 60 < green < 250


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
@pytest.mark.parametrize("ratio", [(64, 45), (8, 9), (4, 3)])
def test_pixels_keep_their_shape(tmp_path: Path, ratio: tuple[int, int], suffix: str) -> None:
    source = write_at(tmp_path / "in.mp4", [0, 1 / 30], sample_aspect_ratio=Fraction(*ratio))
    with av.open(str(done(source, tmp_path / f"out{suffix}"))) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(*ratio)


@pytest.mark.parametrize(("rotation", "size", "ratio"), [(90, (120, 160), (3, 4)), (180, (160, 120), (4, 3))])
def test_the_shape_of_pixels_turns_with_the_picture(
    tmp_path: Path, rotation: int, size: tuple[int, int], ratio: tuple[int, int]
) -> None:
    source = write_at(tmp_path / "in.mp4", [0, 1 / 30], rotation=rotation, sample_aspect_ratio=Fraction(4, 3))
    with av.open(str(done(source, tmp_path / "out.mp4"))) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == size
        assert video.sample_aspect_ratio == Fraction(*ratio)
        assert next(container.decode(video=0)).rotation == 0


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_text_and_chapters_are_kept(tmp_path: Path, suffix: str) -> None:
    texts = {"title": "A holiday", "comment": "At the sea", "date": "2026-05-01"}
    chapter = ["[CHAPTER]", "TIMEBASE=1/1000", "START=0", "END=500", "title=Morning"]
    lines = [";FFMETADATA1", *(f"{name}={text}" for name, text in texts.items()), *chapter]
    (tmp_path / "texts").write_text("\n".join(lines))
    plain, source = write_at(tmp_path / "plain.mkv", GRID), tmp_path / "in.mkv"
    ffmpeg("-i", plain, "-f", "ffmetadata", "-i", tmp_path / "texts", "-map_metadata", 1, "-c", "copy", source)
    with av.open(str(done(source, tmp_path / f"out{suffix}"))) as container:
        found = {name.lower(): value for name, value in container.metadata.items()}
        assert texts.items() <= found.items()
        assert [each["metadata"]["title"] for each in container.chapters()] == ["Morning"]


def test_an_mp4_can_be_played_while_it_loads(tmp_path: Path) -> None:
    """Its index (moov) is before its pictures (mdat), which are the first stream."""
    write_video(tmp_path / "in.mp4")
    data = done(tmp_path / "in.mp4", tmp_path / "out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
