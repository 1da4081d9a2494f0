"""`portrait process`: names of files say nothing but where they are, and a still is known by its bytes."""

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from portrait.cli import main
from portrait.transports.files import plan
from tests.films import COMMAND, SHOWN, folder, read_video, results, write_at

__all__ = ["folder"]  # a fixture

GRID = [i / 30 for i in range(5)]
NAMES = [
    "10:30.mp4",
    "2026-05-01T10:30:00+02:00.mp4",
    "concat:x.mp4",
    "pipe:0.mp4",
    "50%d off?.mp4",
    "a b#c&d.mp4",
    "[x]{y}.mp4",
    "'q'\"r\".mp4",
    "ünïcödé 人.mp4",
    "new\nline.mp4",
    "x" * 251 + ".mp4",
    "人" * 83 + ".mp4",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:24])
def test_a_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also relative to the folder one is in: `concat:x.mp4` is the name of a file, and no protocol."""
    monkeypatch.chdir(tmp_path)
    write_at(tmp_path / "in.mp4", GRID)
    assert main(["process", "in.mp4", name]) == 0
    assert len(read_video(tmp_path / "in.mp4")) == 5
    (tmp_path / "in.mp4").unlink()
    assert main(["process", name, "out.mp4"]) == 0
    assert results(tmp_path) == {name, "out.mp4"}


def test_bytes_that_are_no_text_are_a_name(tmp_path: Path) -> None:
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    shutil.move(write_at(tmp_path / "in.mp4", GRID), tmp_path / name)
    assert main(["process", str(tmp_path / name), str(tmp_path / f"out-{name}")]) == 0
    assert results(tmp_path) == {name, f"out-{name}"}


def test_shared_memory_holds_ordinary_files(tmp_path: Path) -> None:
    source = Path("/dev/shm") / f"{tmp_path.name}-{tmp_path.parent.name}.mp4"
    try:
        shutil.move(write_at(tmp_path / "in.mp4", GRID), source)
        [job] = plan([str(source)], str(tmp_path / "out.mp4"), "blur")
        assert not job.endless
        assert main(["process", str(source), str(source.with_suffix(".mkv"))]) == 0
        assert len(read_video(source.with_suffix(".mkv"))) == 5
    finally:
        source.unlink(missing_ok=True)
        source.with_suffix(".mkv").unlink(missing_ok=True)


def still(path: Path, kind: str, **options: object) -> Path:
    Image.fromarray(SHOWN.frames[0][..., ::-1]).save(path, kind, **options)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("i.jfif", "JPEG"), ("i.jpe", "JPEG"), ("i", "JPEG"), ("i.mp4", "JPEG"), ("i.png", "JPEG"), ("i.JPG", "PNG"),
        ("i.dat", "WEBP"), ("i.bmp", "BMP"), ("i.tif", "TIFF"), ("i.gif", "GIF"), ("i.avif", "AVIF"),
    ],
)  # fmt: skip
def test_a_still_is_known_by_its_bytes(tmp_path: Path, name: str, kind: str) -> None:
    source, target = still(tmp_path / name, kind), tmp_path / "out.png"
    assert main(["process", str(source), str(target), "--mode", "mask"]) == 0
    found, expected = cv2.imread(str(target), cv2.IMREAD_UNCHANGED), tmp_path / "expected.png"
    assert found is not None
    assert main(["process", str(still(tmp_path / "plain.png", "PNG")), str(expected), "--mode", "mask"]) == 0
    plain = cv2.imread(str(expected), cv2.IMREAD_UNCHANGED)
    assert plain is not None
    assert found.shape == plain.shape == (240, 320), "grey"
    assert np.abs(found.astype(int) - plain).mean() < 6


@pytest.mark.parametrize("mode", ["mask", "alpha"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_mask_is_a_grey_picture_from_black_to_white(tmp_path: Path, mode: str, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    assert main(["process", str(still(tmp_path / "in.png", "PNG")), str(target), "--mode", mode]) == 0
    found = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert found.ndim == 2
    assert found.min() < 4
    assert found.max() > 251


def test_a_still_comes_by_a_pipe(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    with still(tmp_path / "in.jpg", "JPEG").open("rb") as data:
        subprocess.run([*COMMAND, "-", str(target), "--mode", "cutout"], stdin=data, check=True, timeout=300)
    assert cv2.imread(str(target), cv2.IMREAD_UNCHANGED).shape == (240, 320, 4)


@pytest.mark.parametrize(
    ("name", "head", "target", "message"),
    [
        ("i.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "o.png", "expected JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF"),
        ("i.psd", b"8BPS\0\1", "o.png", "o.png is a still's name"),
        ("i.jpg", b"", "o.mp4", "o.mp4 cannot hold the result; expected a name in .jpg"),
        ("in.mp4", None, "o.jpg", "o.jpg is a still's name"),
    ],
)
def test_what_is_not_taken_is_said_with_what_is(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    head: bytes | None,
    target: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if head is None:
        write_at(tmp_path / name, GRID)
    elif head:
        (tmp_path / name).write_bytes(head + bytes(100))
    else:
        still(tmp_path / name, "JPEG")
    assert main(["process", name, target]) == 2
    assert message in capsys.readouterr().err


def test_hidden_files_are_left_alone_and_others_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`._` files beside each other file are what a Mac writes to a stick."""
    for name in ("one.jpg", "film.mp4"):
        (folder / f"._{name}").write_bytes(bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(4000))
    (folder / ".cache").mkdir()
    shutil.copy(folder / "one.jpg", folder / ".cache" / "thumbnail.jpg")
    still(folder / "deep" / "without suffix", "JPEG")
    write_at(folder / "phone.mkv", GRID)
    shutil.move(folder / "phone.mkv", folder / "phone.3gp")
    assert main(["process", str(folder), str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    expected = {"one.jpg", "deep/two.png", "film.mp4", "deep/without suffix.png", "phone.mp4"}
    assert results(tmp_path / "out") == expected
    assert json.loads(said.out)["passed_over"] == [str(folder / "notes.txt")]
    assert "notes.txt" in said.err
    assert "._" not in said.err


def test_two_inputs_of_one_name_get_two(tmp_path: Path) -> None:
    for path in ("a/one.jpg", "b/one.jpg", "a/film.webm", "a/film.avi", "a/film.mp4"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    sources = [str(tmp_path / name) for name in ("a", "b", "a/one.jpg")]
    jobs = plan(sources, str(tmp_path / "out"), "blur")
    found = {str(Path(job.source).relative_to(tmp_path)): Path(job.target).name for job in jobs}
    assert found == {
        "a/film.avi": "film.avi.mp4", "a/film.mp4": "film.mp4", "a/film.webm": "film.webm.mp4",
        "a/one.jpg": "one.jpg", "b/one.jpg": "one-2.jpg",
    }  # fmt: skip
    cameras = plan(["rtsp://a/b", "rtsp://me:secret@a/b"], "out", "blur")
    assert [job.target for job in cameras] == ["out/a-b.mkv", "out/a-b-2.mkv"]


@pytest.mark.parametrize("name", ["out.png", "out.mp4"])
def test_a_failure_names_what_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Not the hidden file that a result is written to until it is whole."""
    source = write_at(tmp_path / "in.mp4", GRID) if name == "out.mp4" else still(tmp_path / "in.png", "PNG")
    target = tmp_path / name
    target.mkdir()  # so that the result cannot take its place
    assert main(["process", str(source), str(target)]) in (1, 2)
    said = capsys.readouterr().err
    assert str(target) in said
    assert ".part" not in said
