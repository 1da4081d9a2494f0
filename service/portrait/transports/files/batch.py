"""Batch: several jobs at once, each for itself."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from portrait.client import ClientError
from portrait.errors import PortraitError
from portrait.transports.files.jobs import Job
from portrait.transports.files.places import without_secrets
from portrait.transports.files.reader import Progress, Stopped
from portrait.transports.files.run_job import Opening, run

logger = logging.getLogger(__name__)

STEP = 0.5
"""Seconds after which an interrupt is seen at the latest."""

Watching: TypeAlias = Callable[[Job], AbstractContextManager[Progress]]
"""Opens what shows the progress of a job."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job."""

    job: Job
    frames: int = 0
    skipped: bool = False
    """Its result was there already."""
    interrupted: bool = False
    """It was cut short, or not begun, because of an interrupt."""
    notes: tuple[str, ...] = ()
    """What a user should know of the result."""
    error: str = ""

    def as_document(self) -> dict[str, Any]:
        """For programs; what is false or empty is left out."""
        told = {
            "skipped": self.skipped, "interrupted": self.interrupted, "notes": list(self.notes), "error": self.error
        }  # fmt: skip
        places = {"in": without_secrets(self.job.source), "out": without_secrets(self.job.target)}
        return {**places, "frames": self.frames, **{name: value for name, value in told.items() if value}}


class Batch:
    """Independent jobs: the failure of one is its own outcome.

    As many run at once as `at_once` says, except for live sources: these all begin together, since whatever one of them
    sends while it waits is lost; at least one of the others runs beside them.
    """

    def __init__(self, opening: Opening, watching: Watching, *, at_once: int, resume: bool) -> None:
        self._opening, self._watching, self._at_once, self._resume = opening, watching, at_once, resume
        self._stop = threading.Event()

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do the jobs; what became of each, in their order.

        An interrupt from the keyboard ends live sources whole and gives up the rest; it is not raised.
        """
        first = sorted(jobs, key=lambda job: not job.endless)
        endless = sum(job.endless for job in jobs)
        size = max(self._at_once, endless + (endless < len(jobs)))
        with ThreadPoolExecutor(size, thread_name_prefix="job") as pool:
            futures = {job: pool.submit(self._one, job) for job in first}
            try:
                # In steps: a signal that the system gives to another thread does not wake one that waits for a lock.
                while wait(futures.values(), STEP).not_done:
                    pass
            except KeyboardInterrupt:
                self._stop.set()
        return [futures[job].result() for job in jobs]

    def _one(self, job: Job) -> Outcome:
        if self._resume and job.done:
            return Outcome(job, skipped=True)
        if self._stop.is_set():
            return Outcome(job, interrupted=True)
        try:
            with self._watching(job) as progress:

                def watched(done: int, expected: int) -> None:
                    progress(done, expected)
                    if self._stop.is_set():
                        raise Stopped

                done = run(job, self._opening, watched)
                return Outcome(job, done.frames, notes=done.notes)
        except Stopped:
            return Outcome(job, interrupted=True)
        except (PortraitError, ClientError, OSError) as error:
            return Outcome(job, error=str(error))
        except Exception as error:  # whatever a library raises, the other jobs continue
            logger.exception("%s", without_secrets(job.source))
            return Outcome(job, error=f"{type(error).__name__}: {error}")
