"""What `pip install` gets: the wheel made from the sdist holds all the service needs, and runs by itself."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from portrait import __version__

ROOT = Path(__file__).parents[1]


def build(source: Path, target: str, into: Path) -> Path:
    """The one file that the build backend makes of a source tree, without the internet."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = into.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    place = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", place / "made")) as archive:
        archive.extractall(place, filter="data")
    return place / f"portrait-{__version__}"


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, as pip would lay them out."""
    place = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(sdist, "wheel", place / "made")) as archive:
        archive.extractall(place / "site")
    return place / "site"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows which files are the project's")
def test_the_sdist_holds_the_tree_its_tests_and_nothing_made(sdist: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    wanted = {name for name in listed.stdout.splitlines() if not name.startswith(".") and (ROOT / name).exists()}
    found = files(sdist)
    assert not wanted - found
    assert not [name for name in found if "__pycache__" in name or name.startswith((".venv", "runs", "peers"))]


def test_the_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    of_the_package = ROOT / "service" / "portrait"
    source = {name for name in files(of_the_package) if "__pycache__" not in name}
    assert files(installed / "portrait") == source
    assert {"models/portrait.tflite", "v1/segmentation_pb2.py", "web/index.html", "py.typed"} <= source


def test_the_wheel_segments_by_its_own_model(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "portrait", "bench", "--frames", "1", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(installed)}, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout)
    where = "import portrait; print(portrait.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env={"PYTHONPATH": str(installed)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.startswith(str(installed)), "the wheel's own package was asked, not the checkout's"
