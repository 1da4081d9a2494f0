"""The generated code is what the contract says now."""

import subprocess
import sys
from pathlib import Path

import google.rpc
import pytest

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "service" / "portrait" / "v1"


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="the code generator comes with the test extra")
    common = Path(google.rpc.__path__[0]).parents[1]
    (tmp_path / "out").mkdir()
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", f"-I{common}",
         f"--python_out={tmp_path / 'out'}", f"--grpc_python_out={tmp_path / 'out'}",
         str(ROOT / "protos" / "portrait" / "v1" / "segmentation.proto")],
        check=True,
    )  # fmt: skip
    for path in sorted((tmp_path / "out").rglob("*.py")):
        assert path.read_text() == (GENERATED / path.name).read_text(), f"{path.name} is stale: run make protos"
