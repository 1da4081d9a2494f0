"""Runs one job: a still or a video from its source to its target, which appears when it is complete."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from portrait.errors import BadPicture
from portrait.transports.files.backend import Work
from portrait.transports.files.jobs import Job
from portrait.transports.files.places import is_live, without_secrets
from portrait.transports.files.reader import Progress, Reader, Stopped, open_source
from portrait.transports.files.still import process_still
from portrait.transports.files.writer import Writer, paced

Opening: TypeAlias = Callable[[Job], AbstractContextManager[Work]]
"""Opens the work of a job."""

MOST_NAME = 255
"""Bytes of a file's name on the file systems in use."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job that has written its result."""

    frames: int
    notes: tuple[str, ...] = ()
    """What a user should know: what was left out of the result, or re-encoded."""


def run(job: Job, opening: Opening, progress: Progress) -> Done:
    """Run one job with a pipeline of its own, so that no file's last mask reaches the next.

    Raises:
        BadPicture: the source is no picture, or no video.
        BadOption: the target's format cannot hold the result.
        OSError: the source cannot be read, or the target not be written.
    """
    with opening(job) as work, _atomic_target(job.target) as place:
        if job.still:
            process_still(job.source, Path(place), work, job.mode)
            return Done(1)
        return _process_video(job.source, job.target, place, work, progress)


def _process_video(source: str, target: str, place: str, work: Work, progress: Progress) -> Done:
    """Process every frame of the video at `source` and write it with its sound to `place`; messages name `target`.

    A live source ends with Stopped, with an interrupt from the keyboard, or when its connection is lost; what has
    arrived by then is written as a complete file. Damaged packets are skipped and reported.

    Raises:
        BadPicture: the source is no video, or none of it can be decoded.
        BadOption: the target's format cannot hold it.
        Stopped: `progress` has raised it, and the source is a file.
        BrokenPipeError: the target is standard output, and its reader has ended.
    """
    with open_source(source) as container:
        reader = Reader(container, source)
        writer = Writer(reader, place, target, paced=paced(source, target))
        try:
            frames = reader.frames(writer.add_tracks(), writer.write_beside, progress)
            try:
                for result in work(frames):
                    writer.write(result)
            except (KeyboardInterrupt, Stopped):
                if not is_live(source):
                    raise
            if not writer.frames:
                raise BadPicture("IN", without_secrets(f"{source}: ended before its first picture"))
            writer.finish()
        finally:
            writer.close()
        return Done(writer.frames, _notes(reader, writer))


def _notes(reader: Reader, writer: Writer) -> tuple[str, ...]:
    notes = list(writer.notes)
    if damaged := reader.damaged + writer.damaged:
        notes.append(f"{damaged} damaged {'packet is' if damaged == 1 else 'packets are'} left out or shown in part")
    if reader.cut:
        notes.append(f"the source is lost after {writer.frames} frames, what has come is written: {reader.cut}")
    return tuple(notes)


@contextmanager
def _atomic_target(target: str) -> Iterator[str]:
    """The path to write to, which becomes `target` when the block succeeds; a failure leaves nothing behind."""
    if is_live(target):
        yield target
        return
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = hidden_part(path)
    try:
        yield str(part)
        part.rename(path)
    except OSError as error:
        if error.filename == str(part):  # a name the user never gave
            raise OSError(error.errno, error.strerror, target) from None
        raise
    finally:
        part.unlink(missing_ok=True)


def hidden_part(path: Path) -> Path:
    """The hidden name of a result that is not whole; shortened where the file system takes no longer one."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    name = os.fsencode(path.name)
    if len(os.fsencode(part.name)) <= MOST_NAME:
        return part
    return path.with_name(f".{hashlib.sha256(name).hexdigest()[:16]}.part{path.suffix[: MOST_NAME // 2]}")
