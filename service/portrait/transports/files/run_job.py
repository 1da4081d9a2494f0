"""Running a job: its source to its target, which appears when it is whole."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from portrait.transports.files.backend import Work
from portrait.transports.files.jobs import Job
from portrait.transports.files.places import is_live
from portrait.transports.files.reader import Progress
from portrait.transports.files.report import Done
from portrait.transports.files.still import process_still
from portrait.transports.files.transcode import process_video

MOST_NAME = 255
"""Bytes of a file's name on the file systems in use."""


def run(job: Job, opening: Callable[[], AbstractContextManager[Work]], progress: Progress) -> Done:
    """Do one job with work of its own, so that no file's last mask reaches the next.

    Raises:
        BadPicture: the source is no picture, or no video.
        BadOption: the target's format cannot hold the result.
        OSError: the source cannot be read, or the target not be written.
    """
    with opening() as work, _appearing(job.target) as place:
        if job.still:
            return process_still(job.source, Path(place), work, job.mode)
        return process_video(job.source, job.target, place, work, progress)


@contextmanager
def _appearing(target: str) -> Iterator[str]:
    """Where to write what shall be `target` once it is whole; nothing is left of a failure."""
    if is_live(target):
        yield target
        return
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        yield str(part)
        part.rename(path)
    except OSError as error:
        if error.filename == str(part):  # a name the user never gave
            raise OSError(error.errno, error.strerror, target) from None
        raise
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """The hidden name of a result that is not whole; shortened where the file system takes no longer one."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    name = os.fsencode(path.name)
    if len(os.fsencode(part.name)) <= MOST_NAME:
        return part
    return path.with_name(f".{hashlib.sha256(name).hexdigest()[:16]}.part{path.suffix[: MOST_NAME // 2]}")
