"""What is made of the contract in protos/: `python -m tests.protos` writes it into the packages.

For each file the compiled contract, from which `portrait_client.contract` builds classes, and for ours their types.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[1]
PROTOS = ROOT / "protos"
CLIENT = ROOT / "clients" / "python" / "portrait_client"
COMPILED = {
    "portrait/v1/segmentation.proto": CLIENT / "v1" / "segmentation.binpb",
    "portrait/kserve/inference.proto": ROOT / "service" / "portrait" / "kserve" / "inference.binpb",
    "google/rpc/status.proto": CLIENT / "status.binpb",
    "google/rpc/error_details.proto": CLIENT / "error_details.binpb",
}
"""Where the compiled form of each file is kept."""


def protoc(*arguments: str) -> None:
    """Run the compiler on the contract's folder."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *arguments], check=True, cwd=ROOT)


def compiled(name: str, *options: str) -> FileDescriptorProto:
    """A file of the contract; with `--include_source_info` its comments too."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        protoc(f"--descriptor_set_out={target}", *options, name)
        return FileDescriptorSet.FromString(target.read_bytes()).file[0]


def write() -> None:
    """Write what is made of every file."""
    for name, target in COMPILED.items():
        target.write_bytes(compiled(name).SerializeToString(deterministic=True))
    ours = [name for name in COMPILED if name.startswith("portrait")]
    with tempfile.TemporaryDirectory() as folder:
        protoc(f"--mypy_out=quiet:{folder}", f"--mypy_grpc_out=quiet:{folder}", *ours)
        for name in ours:
            for made in (Path(folder) / name).parent.iterdir():
                # protoc names a module after its file's path in protos/.
                text = made.read_text().replace("from portrait.v1 import", "from portrait_client.v1 import")
                (COMPILED[name].parent / made.name).write_text(text)


if __name__ == "__main__":
    write()
