"""What `pip install` gets: the wheels hold all that server and client need, and each runs by itself."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import portrait
from portrait.server.app import RunningService
from tests.snippets import ending

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "clients" / "python"


def build(source: Path, target: str, into: Path) -> Path:
    """The one file that the build backend makes of a source tree, without the internet."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = into.iterdir()
    return made


def unpacked_sdist(source: Path, place: Path) -> Path:
    """The sdist of a source tree, unpacked."""
    with tarfile.open(build(source, "sdist", place / "made")) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (folder,) = (place / "unpacked").iterdir()
    return folder


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's sdist, unpacked."""
    return unpacked_sdist(ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, made of its sdist."""
    place = tmp_path_factory.mktemp("client")
    return build(unpacked_sdist(CLIENT, place), "wheel", place / "wheel")


@pytest.fixture(scope="module")
def client_alone(client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the client's wheel, as pip would lay them out."""
    folder = tmp_path_factory.mktemp("client-site")
    with zipfile.ZipFile(client_wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def installed(sdist: Path, client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of both wheels."""
    place = tmp_path_factory.mktemp("wheel")
    for wheel in (build(sdist, "wheel", place / "made"), client_wheel):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place / "site")
    return place / "site"


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows which files are the project's")
def test_the_sdist_holds_the_tree_its_tests_and_nothing_made(sdist: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    wanted = {name for name in listed.stdout.splitlines() if not name.startswith(".") and (ROOT / name).exists()}
    found = files(sdist)
    assert not wanted - found
    assert not [name for name in found if name.startswith((".venv", "runs", "peers"))]


def test_the_wheels_hold_every_file_of_their_packages(installed: Path) -> None:
    for package in (ROOT / "service" / "portrait", CLIENT / "portrait_client"):
        assert files(installed / package.name) == files(package)
    assert {"models/portrait.tflite", "web/index.html", "py.typed"} <= files(installed / "portrait")
    assert {"v1/segmentation.binpb", "v1/segmentation_pb2.pyi", "py.typed"} <= files(installed / "portrait_client")


def test_the_wheel_segments_by_its_own_model(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "portrait", "bench", "--frames", "1", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(installed)}, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout)
    where = "import portrait, portrait_client; print(portrait.__file__, portrait_client.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env={"PYTHONPATH": str(installed)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for path in found.stdout.split():
        assert path.startswith(str(installed)), "the wheels' own packages were asked, not the checkout's"


def test_the_client_is_small_and_of_the_servers_release(client_wheel: Path) -> None:
    assert client_wheel.name == f"portrait_client-{portrait.__version__}-py3-none-any.whl"
    assert client_wheel.stat().st_size < 200_000
    needs = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split("[><=]", need)[0] for need in needs} == {"grpcio", "numpy", "protobuf"}
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"portrait-client=={portrait.__version__}" in server["dependencies"]


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("portrait", "grpc_status", "cv2") or name.startswith("google.rpc"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
from portrait_client import ClientError, Picture, SyncClient

with SyncClient(sys.argv[1]) as client:
    try:
        client.segment(Picture.jpeg(b"hello"))
    except ClientError as error:
        print(error.code, error.reason)
"""


async def test_the_client_says_why_without_the_packages_of_the_server(
    client_alone: Path, service: RunningService, tmp_path: Path
) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(client_alone)}
    given = [sys.executable, "-c", ALONE, f"127.0.0.1:{service.grpc_port}"]
    assert await ending(environ, *given, folder=tmp_path) == (0, "INVALID_ARGUMENT BAD_PICTURE\n")
