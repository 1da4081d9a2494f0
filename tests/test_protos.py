"""The contract: generated code and tables are what it says now, and it is well formed and breaks nobody."""

import shutil
import subprocess
import sys
from pathlib import Path

import google.rpc
import pytest

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "service"
COMMON = Path(google.rpc.__path__[0]).parents[1]
PROTOS = ["portrait/v1/segmentation.proto", "portrait/kserve/inference.proto"]
BUF = ROOT / "tests" / "node" / "node_modules" / ".bin" / "buf"

needs_buf = pytest.mark.skipif(not BUF.exists(), reason="buf is not installed: run make tests/node/node_modules/ready")


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="the code generator comes with the test extra")
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", f"-I{COMMON}",
         f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", *PROTOS],
        check=True,
    )  # fmt: skip
    made = sorted(tmp_path.rglob("*.py"))
    assert len(made) == 2 * len(PROTOS)
    for path in made:
        name = path.relative_to(tmp_path)
        assert path.read_text() == (SERVICE / name).read_text(), f"{name} is stale: run make protos"


def test_the_tables_of_the_docs_are_the_contracts() -> None:
    pytest.importorskip("grpc_tools", reason="the code generator comes with the test extra")
    from tests.proto_tables import PAGE, undocumented, updated

    assert list(undocumented()) == []
    assert updated(PAGE.read_text()) == PAGE.read_text(), "docs/protocol.md is stale: run make protos"


def whole(protos: Path, target: Path) -> Path:
    """`protos` with the one file of googleapis it imports."""
    shutil.copytree(protos, target)
    (target / "google" / "rpc").mkdir(parents=True)
    shutil.copy(COMMON / "google" / "rpc" / "status.proto", target / "google" / "rpc")
    return target


def buf(*arguments: str | Path, cwd: Path) -> None:
    done = subprocess.run([BUF, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_buf
def test_buf_finds_nothing_to_say(tmp_path: Path) -> None:
    buf("lint", cwd=whole(ROOT / "protos", tmp_path / "mine"))


@needs_buf
def test_nothing_that_main_promised_is_broken(tmp_path: Path) -> None:
    def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)

    main = next(
        (name for name in ("origin/main", "main") if git("rev-parse", "-q", "--verify", name).returncode == 0), ""
    )
    if not main:
        pytest.skip("no branch main to compare with")
    (tmp_path / "checkout").mkdir()
    archive = git("archive", main, "protos").stdout
    subprocess.run(["tar", "-x", "-C", tmp_path / "checkout"], input=archive, check=True)
    theirs = whole(tmp_path / "checkout" / "protos", tmp_path / "theirs")
    buf("breaking", "--against", theirs, cwd=whole(ROOT / "protos", tmp_path / "mine"))
