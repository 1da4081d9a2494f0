"""The examples of docs/examples, run as they stand there."""

import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from portrait.client import Client
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.calls import client, jpeg, pictures, shown
from tests.credentials import TOKEN, Authority, authority, tokens
from tests.embedded import SIDE
from tests.people import Clip, iou
from tests.snippets import blocks, ending, folder, go_environ, needs_go, placed, run_shell
from tests.snippets import run as run_well
from tests.whip import publisher

__all__ = ["authority", "client", "folder", "shown", "tokens"]  # fixtures

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
NODE = shutil.which("node", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


async def run(*command: Any, **environ: str) -> tuple[int, str]:
    """Exit status and what was said, by a program that knows nothing of the tests' environment."""
    return await ending({"PATH": "/usr/local/bin:/usr/bin:/bin", **environ}, *command)


@pytest.fixture
def frames(tmp_path: Path, shown: Clip) -> list[Path]:
    files = [tmp_path / f"{i:02}.jpg" for i in range(len(shown.frames))]
    for file, frame in zip(files, shown.frames, strict=True):
        file.write_bytes(jpeg(frame).message.data)
    return files


needs_node = pytest.mark.skipif(
    NODE is None or not (EXAMPLES / "node" / "node_modules").exists(),
    reason="Node.js or its packages are missing: run make docs/examples/node/node_modules/ready",
)


@needs_node
async def test_the_node_client_gets_the_python_clients_masks(
    service: RunningService, client: Client, shown: Clip, frames: list[Path]
) -> None:
    expected = [reply.array async for reply in client.stream(pictures(shown.frames, jpeg), every_frame=True)]
    status, said = await run(NODE, EXAMPLES / "node" / "stream.mjs", f"127.0.0.1:{service.grpc_port}", *frames)
    assert status == 0, said
    assert re.search(rf"^session [\w-]{{16,}}, model portrait {SIDE}x{SIDE}$", said, re.MULTILINE), said
    for file, mask in zip(frames, expected, strict=True):
        assert file.with_suffix(".pgm").read_bytes() == b"P5 %d %d 255\n" % (SIDE, SIDE) + mask.tobytes()


@needs_node
async def test_the_node_client_says_what_was_refused(service: RunningService, frames: list[Path]) -> None:
    frames[1].write_bytes(b"hello")
    target = f"127.0.0.1:{service.grpc_port}"
    status, said = await run(NODE, EXAMPLES / "node" / "stream.mjs", target, *frames[:3])
    assert status == 1
    assert "01.jpg: data: got 5 bytes that are no picture" in said
    assert frames[2].with_suffix(".pgm").exists()


@pytest.fixture
async def secured(
    settings: Settings, tokens: Path, authority: Authority, tmp_path: Path
) -> AsyncIterator[tuple[RunningService, str]]:
    """A service that asks for a token, and the file of the authority to trust it by."""
    certificate, key = authority.issue(tmp_path, "server")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    files = {"tls_certificate": certificate, "tls_key": key, "tokens": tokens}
    async with run_service(settings.model_copy(update=files)) as running:
        yield running, str(ca)


async def test_the_shells_example_brings_credentials(
    secured: tuple[RunningService, str], frames: list[Path], shown: Clip, tmp_path: Path
) -> None:
    running, ca = secured
    out, given = tmp_path / "cutout.png", {"SERVER": f"https://localhost:{running.http_port}", "CA": ca}
    status, said = await run(EXAMPLES / "cutout.sh", frames[0], out, TOKEN=TOKEN, **given)
    assert status == 0, said
    alpha = np.asarray(cv2.imread(str(out), cv2.IMREAD_UNCHANGED))[..., 3]
    assert iou(shown.masks[0], alpha) > 0.85
    status, said = await run(EXAMPLES / "cutout.sh", frames[0], out, **given)
    assert status != 0
    assert "401" in said


@needs_node
async def test_the_node_client_brings_credentials(secured: tuple[RunningService, str], frames: list[Path]) -> None:
    running, ca = secured
    command = NODE, EXAMPLES / "node" / "stream.mjs", f"localhost:{running.grpc_port}", frames[0]
    status, said = await run(*command, TOKEN=TOKEN, CA=ca)
    assert status == 0, said
    status, said = await run(*command, CA=ca)
    assert status == 1
    assert "UNAUTHENTICATED: got no credentials" in said


@needs_node
async def test_the_node_client_says_what_it_takes() -> None:
    """Without a picture it would open a stream and wait."""
    status, said = await run(NODE, EXAMPLES / "node" / "stream.mjs", "127.0.0.1:1")
    assert status == 2
    assert "usage: node stream.mjs HOST:PORT FILE.jpg" in said


GRPC_PAGE = ROOT / "docs" / "reference" / "grpc.md"
GENERATE, CURL = blocks(GRPC_PAGE, "sh")
EACH_CALL = [
    f"ListModels: portrait {SIDE}x{SIDE}",
    "Segment: 512x512",
    *(f"SegmentStream: {number} {SIDE}x{SIDE}" for number in range(3)),
    f"Watch: {SIDE}x{SIDE}",
    "Check: SERVING",
    f"ModelInfer: mask [1 {SIDE} {SIDE} 1]",
]
"""What the programs of docs/reference/grpc.md say of the picture me.jpg; Python's leaves out the last."""


@asynccontextmanager
async def publishing(settings: Settings, shown: Clip) -> AsyncIterator[str]:
    """The gRPC address of a service where a browser publishes the stream `desk`."""
    async with (
        run_service(settings) as service,
        publisher(f"http://127.0.0.1:{service.http_port}", shown) as browser,
    ):
        await browser.connect("/whip/desk", mode="mask")
        yield f"127.0.0.1:{service.grpc_port}"


async def test_python_makes_each_call(settings: Settings, shown: Clip, folder: Path) -> None:
    async with publishing(settings, shown) as target:
        said = await run_well(folder, sys.executable, EXAMPLES / "python" / "calls.py", target, "me.jpg", "desk")
    assert said.splitlines() == EACH_CALL[:-1]


@needs_node
async def test_node_makes_each_call(settings: Settings, shown: Clip, folder: Path) -> None:
    async with publishing(settings, shown) as target:
        said = await run_well(folder, NODE, EXAMPLES / "node" / "calls.mjs", target, "me.jpg", "desk")
    assert said.splitlines() == EACH_CALL


@needs_go
async def test_go_makes_each_call(settings: Settings, shown: Clip, folder: Path) -> None:
    """Its packages are generated and its program is built as the page says."""
    (folder / "protos").symlink_to(ROOT / "protos")
    (folder / "src").mkdir()
    await run_shell(folder, GENERATE)
    await run_shell(folder, f"go build -o calls {EXAMPLES}/go/calls.go", **go_environ(folder))
    async with publishing(settings, shown) as target:
        said = await run_well(folder, folder / "calls", target, "me.jpg", "desk")
    assert said.splitlines() == EACH_CALL


@needs_go  # protoc comes with it
async def test_a_shell_makes_a_call_without_streams(service: RunningService, folder: Path) -> None:
    (folder / "protos").symlink_to(ROOT / "protos")
    said = await run_shell(folder, placed(CURL, service.http_port, service.grpc_port))
    assert 'name: "portrait"' in said
