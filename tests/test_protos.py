"""The contract: generated code and tables are what it says now, and it is well formed and breaks nobody."""

import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

ROOT = Path(__file__).parents[1]
BUF = ROOT / "tests" / "node" / "node_modules" / ".bin" / "buf"

needs_buf = pytest.mark.skipif(not BUF.exists(), reason="buf is not installed: run make tests/node/node_modules/ready")


def test_what_is_made_of_the_contract_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="the compiler comes with the test extra")
    from tests.protos import COMPILED, compiled

    for name, target in COMPILED.items():
        stored = FileDescriptorProto.FromString(target.read_bytes())
        assert stored == compiled(name), f"{target.name} is compiled from an older contract: run make protos"


def test_the_tables_of_the_docs_are_the_contracts() -> None:
    pytest.importorskip("grpc_tools", reason="the compiler comes with the test extra")
    from tests.proto_tables import PAGE, undocumented, updated

    assert list(undocumented()) == []
    assert updated(PAGE.read_text()) == PAGE.read_text(), "docs/reference/protocol.md is stale: run make protos"


def buf(*arguments: str | Path, cwd: Path) -> None:
    done = subprocess.run([BUF, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_buf
def test_buf_finds_nothing_to_say() -> None:
    buf("lint", cwd=ROOT / "protos")


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
    theirs = tmp_path / "checkout" / "protos"
    # A branch from before the folder was complete.
    shutil.copytree(ROOT / "protos" / "google", theirs / "google", dirs_exist_ok=True)
    buf("breaking", "--against", theirs, cwd=ROOT / "protos")
