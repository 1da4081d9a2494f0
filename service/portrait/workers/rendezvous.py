"""What the workers of a box share by name: a folder, the listening HTTP socket and the gRPC port."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from portrait.settings import Settings
from portrait.workers.shared_state import SharedState


@contextmanager
def shared_folder(count: int) -> Iterator[Path]:
    """Make a private folder for the workers' sockets and shared state, for the length of the block.

    Several places are tried: a read-only container may have /dev/shm alone to write to, and a full disk can take a
    folder but not the file in it.

    Raises:
        OSError: none of them can be written to.
    """
    parents = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp", "/dev/shm"]
    folder = next(filter(None, (_make_folder(parent, count) for parent in parents if parent)), None)
    if folder is None:
        raise OSError(
            "the workers need a folder to share: expected XDG_RUNTIME_DIR, TMPDIR, /tmp or /dev/shm to be writable"
        )
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def _make_folder(parent: str, count: int) -> Path | None:
    """Make a folder that can hold the shared state and the workers' sockets; None where that fails."""
    with contextlib.suppress(OSError):
        folder = Path(tempfile.mkdtemp(prefix="portrait-", dir=parent))
        try:
            shared = SharedState(folder, count=count)
            shared.close()
            with socket.socket(socket.AF_UNIX) as tried:  # a socket's path has at most 107 bytes; TMPDIR may be deep
                tried.bind(str(shared.socket(count)))
            shared.socket(count).unlink()
            return folder
        except OSError:
            rmtree(folder, ignore_errors=True)
    return None


@contextmanager
def listening_socket(settings: Settings) -> Iterator[socket.socket]:
    """Open the listening HTTP socket of all workers: any of them accepts a connection that waits in its queue.

    Raises:
        OSError: the address cannot be bound.
    """
    with _bound(settings.host, settings.http_port) as listening:
        listening.listen(128)
        listening.setblocking(False)
        yield listening


@contextmanager
def reserved_port(settings: Settings) -> Iterator[int]:
    """Reserve the gRPC port, which the workers share by SO_REUSEPORT: gRPC accepts no socket from outside.

    It is bound without SO_REUSEPORT first: two boxes on one machine would get each other's calls otherwise.

    Raises:
        OSError: the address cannot be bound.
    """
    with _bound(settings.host, settings.grpc_port) as tried:
        port = tried.getsockname()[1]
    with _bound(settings.host, port, shared=True):
        yield port


@contextmanager
def _bound(host: str, port: int, shared: bool = False) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
        yield bound
