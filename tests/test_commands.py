"""The commands of docs/use/process.md, docs/reference/protocol.md and docs/operate/security.md, run as written."""

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from pydantic import SecretStr

from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.boxes import serving
from tests.browser import open_page
from tests.calls import TRITON, needs_tritonclient
from tests.credentials import Authority, authority
from tests.films import FFMPEG, SHOWN, needs_ffmpeg, read_video, write_video
from tests.snippets import ROOT, blocks, folder, placed, run, run_shell

__all__ = ["authority", "folder"]  # fixtures

PROTOCOL, SECURITY = ROOT / "docs" / "reference" / "protocol.md", ROOT / "docs" / "operate" / "security.md"
FILES = [
    line.partition("  #")[0].strip()
    for line in blocks(ROOT / "docs" / "use" / "process.md")[0].splitlines()
    if not re.search(r"/dev/video|rtsp://", line)
]
"""Without cameras, which are in test_addresses.py, test_several.py and test_virtual_camera.py."""


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video, once as H.264 and once as VP9."""
    assert FFMPEG is not None
    place = tmp_path_factory.mktemp("encoded")
    write_video(place / "in.mp4")
    subprocess.run([FFMPEG, "-v", "error", "-i", "in.mp4", "in.webm"], cwd=place, check=True)
    return place


@pytest.fixture
def films(folder: Path, encoded: Path) -> Path:
    """A folder with what docs/use/process.md names."""
    (folder / "holiday").mkdir()
    shutil.copy(folder / "me.jpg", folder / "holiday")
    for source, name in (("mp4", "in.mp4"), ("mp4", "party.mov"), ("webm", "in.webm"), ("webm", "rain.webm")):
        shutil.copy(encoded / f"in.{source}", folder / name)
    return folder


@needs_ffmpeg
@pytest.mark.parametrize("line", FILES)
async def test_portrait_process_does_what_its_page_says(line: str, films: Path) -> None:
    await run_shell(films, line)
    for name in re.findall(r"\b(?:me\.png|out\.\w+)", line):
        if name.endswith(".png"):
            size = cv2.imread(str(films / "me.jpg")).shape[:2]
            assert cv2.imread(str(films / name), cv2.IMREAD_UNCHANGED).shape == (*size, 4)
        else:
            assert len(read_video(films / name)) == len(SHOWN.frames)
    if "holiday/" in line:
        assert {path.name for path in (films / "out").iterdir()} == {"me.jpg", "party.mov"}


def test_there_are_lines_to_run() -> None:
    assert len(FILES) == 5


@pytest.mark.parametrize("page", [PROTOCOL, ROOT / "README.md"], ids=lambda page: page.name)
async def test_curl_gets_a_cutout(page: Path, service: RunningService, folder: Path) -> None:
    [line] = re.findall(r"^.*?\b(curl -F [^`\n]+)", page.read_text(), re.MULTILINE)
    await run_shell(folder, placed(line, service.http_port, service.grpc_port))
    size = cv2.imread(str(folder / "me.jpg")).shape[:2]
    assert cv2.imread(str(folder / "cutout.png"), cv2.IMREAD_UNCHANGED).shape == (*size, 4)


def program(text: str, given: str, end: str) -> str:
    """A whole program of a snippet: its imports, what it takes for granted, the rest, and a last word."""
    lines = text.splitlines()
    imports = [line for line in lines if line.startswith(("from ", "import "))]
    body = [given, *(line for line in lines if line not in imports), end]
    main = textwrap.indent("\n".join(body), "    ")
    return "\n".join(["import asyncio", *imports, "async def main():", main, "asyncio.run(main())", ""])


async def test_both_python_clients_stream(service: RunningService, folder: Path) -> None:
    text = placed(blocks(PROTOCOL, "python")[0], service.http_port, service.grpc_port)
    given = "import cv2\nframes = [cv2.imread('me.jpg')[..., ::-1]] * 3"
    (folder / "stream.py").write_text(program(text, given, "print(reply.id, reply.array.shape)"))
    assert await run(folder, sys.executable, "stream.py") == "2 (192, 192)\n"
    opened = service._metrics.registry.get_sample_value("portrait_sessions_opened_total", {"transport": "grpc"})
    assert opened == 2


async def test_a_python_client_changes_a_stream(service: RunningService, folder: Path) -> None:
    text = placed(blocks(PROTOCOL, "python")[1], service.http_port, service.grpc_port)
    given = "import cv2\nframes = [cv2.imread('me.jpg')[..., ::-1]] * 2"
    end = "    print(reply.id, stream.info.output.mode, reply.array[0, 0])"
    (folder / "change.py").write_text(program(text, given, end))
    number, mode, *corner = re.findall(r"\w+", await run(folder, sys.executable, "change.py"))
    assert (number, mode) == ("1", "blur")
    assert np.abs(np.array(corner, int) - (0x20, 0x40, 0xC0)).max() < 12


@needs_tritonclient
async def test_tritonclient_asks_for_a_mask(service: RunningService, folder: Path) -> None:
    text = placed(blocks(PROTOCOL, "python")[2], service.http_port, service.grpc_port)
    np.save(folder / "rgb.npy", cv2.imread(str(folder / "me.jpg"))[..., ::-1])
    given = "import numpy, tritonclient.grpc\nrgb = numpy.load('rgb.npy')\n"
    (folder / "triton.py").write_text(f"{given}{text}print(mask.shape, mask.max())\n")
    assert await run(folder, TRITON, "triton.py") == "(1, 192, 192, 1) 255\n"


async def test_a_page_of_ones_own_finds_the_relays(settings: Settings, tmp_path: Path) -> None:
    relays = "turn:192.0.2.1:3478?transport=udp,turn:192.0.2.1:3478?transport=tcp"
    given = settings.model_copy(update={"ice_urls": relays, "turn_secret": SecretStr("secret")})
    [text] = blocks(PROTOCOL, "js")
    async with run_service(given) as service:
        url = f"http://localhost:{service.http_port}/"
        script = placed(text, service.http_port, service.grpc_port).replace("https://", "http://")
        async with open_page(url, tmp_path / "profile", None) as page:
            found = await page.evaluate(f"async () => {{ {script}; return connection.getConfiguration().iceServers; }}")
    assert [server["urls"] for server in found] == [[relay] for relay in relays.split(",")]
    assert all(server["username"].endswith(":portrait") and server["credential"] for server in found)


@pytest.mark.parametrize("number", [0, 1], ids=["its own authority", "yours"])
async def test_a_secured_box_is_reached_as_its_page_says(
    number: int, folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = blocks(SECURITY)[number].splitlines()
    [serve] = [number for number, line in enumerate(lines) if line.startswith("portrait serve")]
    await run_shell(folder, blocks(SECURITY)[0].splitlines()[0])  # the tokens of both
    if number:
        (folder / "ca.crt").write_bytes(authority.pem)
        authority.issue(folder, "server")
    token = (folder / "tokens").read_text().split()[1]
    monkeypatch.chdir(folder)
    with serving(*shlex.split(lines[serve])[2:], PORTRAIT_DATA=str(folder / "data")) as (_, told):
        ports = urlsplit(told["page"]).port, int(told["grpc"].rpartition(":")[2])
        assert ports[0] is not None
        await run_shell(folder, placed("\n".join(lines[serve + 1 :]), *ports))
        text = placed(blocks(SECURITY, "python")[0], *ports).replace("...", "print(await client.models())")
        given = f"from portrait.client import Client, Tls\ntoken = {token!r}"
        (folder / "secured.py").write_text(program(text, given, ""))
        assert "portrait-int8" in await run(folder, sys.executable, "secured.py")
    if number:
        assert cv2.imread(str(folder / "cutout.png")).shape == cv2.imread(str(folder / "me.jpg")).shape
