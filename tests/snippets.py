"""What the docs tell people to type, taken out of their pages and run."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GOCODE = Path("/usr/share/gocode")
GO = shutil.which("go")
needs_go = pytest.mark.skipif(
    GO is None or not (GOCODE / "src/google.golang.org/protobuf").exists(),
    reason="Go or its packages are missing: run make go-packages",
)


def go_environ(folder: Path) -> dict[str, str]:
    """What Go needs to find Debian's packages, and those in `folder`."""
    return {"GO111MODULE": "off", "GOPATH": f"{folder}:{GOCODE}", "GOFLAGS": "-p=2"}


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language; without a name, those without a language."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def placed(text: str, http_port: int, grpc_port: int) -> str:
    """The text with the addresses of a service under test in the place of those it names."""
    text = re.sub(r"\b(localhost|box):8080\b", f"localhost:{http_port}", text)
    return re.sub(r"\b(localhost|box|one|two):50051\b", f"localhost:{grpc_port}", text)


async def ending(environ: dict[str, str], *command: str | Path, folder: Path | None = None) -> tuple[int, str]:
    """Exit status of a program with this environment alone, and what it said; one that does not end is killed."""
    program = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(program.communicate(), 240)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    return program.returncode or 0, said.decode()


async def run(folder: Path, *command: str | Path, **environ: str) -> str:
    """What a program says that ends well."""
    given = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environ}
    status, said = await ending(given, *command, folder=folder)
    assert status == 0, said
    return said


async def run_shell(folder: Path, text: str, **environ: str) -> str:
    """What its commands say, which all end well."""
    return await run(folder, "bash", "-euo", "pipefail", "-c", text, **environ)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with a portrait called me.jpg."""
    shutil.copy(ROOT / "docs" / "pictures" / "astronaut.jpg", tmp_path / "me.jpg")
    return tmp_path
