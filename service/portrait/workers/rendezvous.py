"""What the workers of a box share: a folder to meet in, a listening socket, a port."""

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
def meeting_folder(count: int) -> Iterator[Path]:
    """A folder nobody else may enter, for sockets and the board; gone at the end.

    A read-only container has no other place to write than /dev/shm, and a full disk has room for a folder but not for
    the board.
    """
    places = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp", "/dev/shm"]
    folder = next(filter(None, (_make_folder(place, count) for place in places if place)), None)
    if folder is None:
        raise OSError(
            "the workers need a folder to meet in; neither XDG_RUNTIME_DIR, TMPDIR, /tmp nor /dev/shm can be written to"
        )
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def _make_folder(place: str, count: int) -> Path | None:
    """A folder in `place` that can hold the board and the workers' sockets; None where there can be none."""
    with contextlib.suppress(OSError):
        folder = Path(tempfile.mkdtemp(prefix="portrait-", dir=place))
        try:
            board = SharedState(folder, count=count)
            board.close()
            with socket.socket(socket.AF_UNIX) as tried:  # whose paths may have 107 bytes, which a deep TMPDIR uses up
                tried.bind(str(board.socket(count)))
            board.socket(count).unlink()
            return folder
        except OSError:
            rmtree(folder, ignore_errors=True)
    return None


@contextmanager
def listening_socket(settings: Settings) -> Iterator[socket.socket]:
    """One listening HTTP socket for all workers: a connection that waits is taken by whoever lives."""
    with _bound(settings.host, settings.http_port) as listening:
        listening.listen(128)
        listening.setblocking(False)
        yield listening


@contextmanager
def reserved_port(settings: Settings) -> Iterator[int]:
    """The gRPC port, kept for the workers, which share it by SO_REUSEPORT as gRPC takes no socket of ours.

    It is tried without sharing first: otherwise two boxes on one machine would take each other's calls.
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
