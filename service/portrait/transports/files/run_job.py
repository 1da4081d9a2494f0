"""One job from its source to its target."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from portrait.transports.files.backend import Work
from portrait.transports.files.jobs import Job
from portrait.transports.files.still import process_still
from portrait.transports.files.transcode import Progress, is_live, process_video


def run(job: Job, opening: Callable[[], AbstractContextManager[Work]], progress: Progress) -> int:
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
