"""Jobs: which source becomes what."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from portrait.errors import BadOption
from portrait.transports.files.still import STILLS, check_suffix
from portrait.transports.files.transcode import PIPE, is_live, without_secrets

VIDEOS = (".mp4", ".mov", ".mkv", ".m4v", ".avi", ".webm", ".ts", ".y4m")
"""What is taken from a folder besides stills; a file that is named may have any suffix."""

KEPT = (".mp4", ".mov", ".mkv", ".m4v")
"""Containers that can hold the result; others become .mp4."""

RECORDED = ".mkv"
"""What endless sources become in a folder: it holds whatever sound a camera has, and when the power goes, what is there
can be played."""

NAME = "{name}"
"""Stands for each source's name in an address that several results go to."""


@dataclass(frozen=True, slots=True)
class Job:
    """One source and its target: paths, `-`, cameras or addresses."""

    source: str
    target: str

    @property
    def still(self) -> bool:
        """Whether it is a picture and no video."""
        return not self.endless and Path(self.source).suffix.lower() in STILLS

    @property
    def endless(self) -> bool:
        """Whether it goes on until somebody ends it; what it has sent cannot be had again."""
        return is_live(self.source)

    @property
    def done(self) -> bool:
        """Whether its result is there: results appear under their names when they are whole, not before."""
        return not is_live(self.target) and Path(self.target).exists()


def plan(sources: list[str], target: str, mode: str) -> list[Job]:
    """The jobs of a command: one to a place, or several, a folder's files among them, each to a place of its own.

    Raises:
        BadOption: a target that is its own source, two of one name, or a place that cannot be many.
    """
    if len(sources) == 1 and not _is_folder(sources[0]):
        jobs = [Job(sources[0], target)]
    else:
        if NAME not in target and (is_live(target) or Path(target).is_file()):
            expected = f"one, or an address with {NAME} in it"
            raise BadOption("OUT", without_secrets(f"{target} is no folder; several results need {expected}"))
        jobs = [Job(source, _placed(target, _named(name, mode))) for source, name in _listed(sources)]
        if not jobs:
            raise BadOption("IN", f"{sources[0]} holds no picture and no video")
    taken: dict[str, str] = {}
    for job in jobs:
        if job.target in taken and job.target != PIPE:
            both = f"{job.source} and {taken[job.target]} would both become {job.target}"
            raise BadOption("IN", without_secrets(both))
        taken[job.target] = job.source
        _check(job, mode)
    return jobs


def beside(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, those of endless sources with targets that are not there yet: they go on beside what is."""
    found: list[Job] = []
    taken: set[str] = set()
    for job in jobs:
        found.append(replace(job, target=_free(job.target, taken)) if job.endless else job)
        taken.add(found[-1].target)
    return found


def _free(target: str, taken: Collection[str]) -> str:
    path = Path(target)
    names = (target, *(str(path.with_stem(f"{path.stem}-{number}")) for number in range(2, 10_000)))
    return target if is_live(target) else next(name for name in names if name not in taken and not Path(name).exists())


def _is_folder(place: str) -> bool:
    return not is_live(place) and Path(place).is_dir()


def _listed(sources: list[str]) -> list[tuple[str, Path]]:
    """Every source with the name it has at the target."""
    found: list[tuple[str, Path]] = []
    for source in sources:
        path = Path(source)
        if source == PIPE:
            raise BadOption("IN", f"{PIPE} has no name; expected it alone")
        if is_live(source):
            found.append((source, _called(source)))
        elif not path.is_dir():
            found.append((source, Path(path.name)))
        else:
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*STILLS, *VIDEOS))
            found += [(str(file), file.relative_to(path)) for file in inside if file.is_file()]
    return found


def _called(place: str) -> Path:
    """The name of a camera or an address: all of it but its scheme, and but user and password."""
    parts = urlsplit(place)
    whole = f"{parts.netloc.rpartition('@')[2]}/{parts.path}/{parts.query}" if parts.scheme else place.split("/dev/")[1]
    return Path(re.sub(r"[^\w.]+", "-", whole).strip("-.") + RECORDED)


def _named(name: Path, mode: str) -> Path:
    suffix = name.suffix.lower()
    if suffix in STILLS:
        return name.with_suffix(".png") if mode == "cutout" and STILLS[suffix] == ".jpg" else name
    return name if suffix in KEPT else name.with_suffix(".mp4")


def _placed(target: str, name: Path) -> str:
    return target.replace(NAME, name.stem) if is_live(target) else str(Path(target, name))


def _check(job: Job, mode: str) -> None:
    if mode == "cutout" and not job.still:
        video = without_secrets(job.source)
        raise BadOption("mode", f"{video}: a video has no alpha; expected another mode than cutout")
    if job.still:
        check_suffix(Path(job.target), mode)
    if job.endless or is_live(job.target):
        return
    source, target = Path(job.source), Path(job.target)
    if target.exists() and source.exists() and target.samefile(source):
        raise BadOption("OUT", f"{target} is IN itself")
