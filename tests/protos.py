"""What is made of the contract in protos/: `python -m tests.protos` writes it into the package.

For each file the compiled contract, from which `portrait.contract` builds classes, and their types.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[1]
PROTOS = ROOT / "protos"
PACKAGE = ROOT / "service"
FILES = ("portrait/v1/segmentation.proto", "portrait/kserve/inference.proto")


def protoc(*arguments: str) -> None:
    """Run the compiler on the contract's folder."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *arguments], check=True, cwd=ROOT)


def compiled(name: str, *options: str) -> FileDescriptorProto:
    """A file of the contract; with `--include_source_info` its comments too."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        protoc(f"--descriptor_set_out={target}", *options, name)
        return FileDescriptorSet.FromString(target.read_bytes()).file[0]


def write(package: Path) -> None:
    """Write what is made of every file."""
    for name in FILES:
        (package / name).with_suffix(".binpb").write_bytes(compiled(name).SerializeToString(deterministic=True))
    protoc(f"--mypy_out=quiet:{package}", f"--mypy_grpc_out=quiet:{package}", *FILES)


if __name__ == "__main__":
    write(PACKAGE)
