"""Files in, files out: stills and videos, folders of them, pipes, cameras and addresses."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from portrait.transports.files.plan import Job, plan
from portrait.transports.files.stills import process_still
from portrait.transports.files.videos import is_live, process_video
from portrait.transports.files.work import Work, local_work, remote_work

__all__ = ["Job", "Work", "is_done", "local_work", "plan", "remote_work", "run"]


def is_done(job: Job) -> bool:
    """Whether the job's result is there: results appear under their names when they are whole, not before."""
    return not is_live(job.target) and Path(job.target).exists()


def run(job: Job, opening: Callable[[], AbstractContextManager[Work]], progress: Callable[[int, int], None]) -> int:
    """Do one job with work of its own, so that no file's last mask reaches the next. Returns the number of frames.

    Raises:
        BadPicture: the source is no picture, or no video.
        BadOption: the target's format cannot hold the result.
    """
    with opening() as work, _appearing(job.target) as target:
        if job.still:
            return process_still(Path(job.source), Path(target), work)
        return process_video(job.source, target, work, progress)


@contextmanager
def _appearing(target: str) -> Iterator[str]:
    """Where to write what shall be `target` once it is whole; nothing is left of a failure."""
    if is_live(target):
        yield target
        return
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield str(part)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
