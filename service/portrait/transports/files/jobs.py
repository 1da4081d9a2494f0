"""Jobs: which source becomes what, and under which name."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from portrait.errors import BadOption
from portrait.transports.files.kinds import ANIMATION, STILL, STILLS, kind_of
from portrait.transports.files.places import PIPE, is_folder, is_live, without_secrets
from portrait.transports.files.still import check_suffix

KEPT = (".mp4", ".mov", ".mkv", ".m4v")
"""Containers that can hold the result; others become .mp4."""

RECORDED = ".mkv"
"""What live sources become in a folder: it holds whatever sound a camera has, and can be played up to where the power
went."""

NAME = "{name}"
"""Stands for each source's name in an address that several results go to."""


@dataclass(frozen=True, slots=True)
class Job:
    """One source and its target (paths, `-`, devices or addresses), and the mode of the result."""

    source: str
    target: str
    mode: str = "blur"

    @property
    def still(self) -> bool:
        """Whether it is a picture and no video."""
        kind = kind_of(self.source)
        return kind == STILL or (kind == ANIMATION and Path(self.target).suffix.lower() in STILLS)

    @property
    def endless(self) -> bool:
        """Whether it runs until it is stopped; what a live source has sent cannot be read again."""
        return is_live(self.source) and not self.still

    @property
    def done(self) -> bool:
        """Whether its result is there: results appear under their names when they are whole, not before."""
        return not is_live(self.target) and Path(self.target).exists()


def plan(sources: list[str], target: str, mode: str) -> list[Job]:
    """The jobs of a command: one to a place, or several, a folder's files among them, each to a place of its own.

    Raises:
        BadOption: a target that is its own source, or a place that cannot be many.
    """
    if len(sources) == 1 and not is_folder(sources[0]):
        jobs = [Job(sources[0], target, mode)]
    else:
        if NAME not in target and (is_live(target) or Path(target).is_file()):
            expected = f"one, or an address with {NAME} in it"
            raise BadOption("OUT", without_secrets(f"{target} is no folder; several results need {expected}"))
        jobs = [Job(source, place, mode) for source, place in _placed(_listed(sources), target, mode)]
        if not jobs:
            raise BadOption("IN", f"{sources[0]} holds no picture and no video")
    for job in jobs:
        _check(job)
    return jobs


def passed_over(sources: Iterable[str]) -> list[str]:
    """The files in folders among `sources` that are neither stills nor videos. Hidden ones are not told of."""
    folders = [source for source in sources if is_folder(source)]
    return [str(file) for folder in folders for file in _files(Path(folder)) if not kind_of(str(file))]


def keep_recordings(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, with new targets for live sources whose recordings exist already."""
    found: list[Job] = []
    taken: set[str] = set()
    for job in jobs:
        found.append(replace(job, target=_free(job.target, taken)) if job.endless else job)
        taken.add(found[-1].target)
    return found


def _free(target: str, taken: Collection[str]) -> str:
    return target if is_live(target) else next(n for n in _numbered(target) if n not in taken and not Path(n).exists())


def _numbered(target: str) -> Iterator[str]:
    """`target`, and names like it."""
    yield target
    for number in range(2, 1_000_000):
        if is_live(target):
            yield f"{target}-{number}"
        else:
            path = Path(target)
            yield str(path.with_stem(f"{path.stem}-{number}"))


def _files(folder: Path) -> list[Path]:
    """The files in a folder and below it, without hidden ones, among them the `._` files of a Mac."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if file.is_file())


def _listed(sources: list[str]) -> dict[str, Path]:
    """Every source, once, with the name it has at the target."""
    found: dict[str, Path] = {}
    for source in sources:
        path = Path(source)
        if source == PIPE:
            raise BadOption("IN", f"{PIPE} has no name; expected it alone")
        if is_live(source):
            found.setdefault(source, _called(source))
        elif not path.is_dir():
            found.setdefault(str(path), Path(path.name))
        else:
            for file in _files(path):
                if kind_of(str(file)):
                    found.setdefault(str(file), file.relative_to(path))
    return found


def _called(place: str) -> Path:
    """The name of a device or an address: all of it but its scheme, and but user and password."""
    parts = urlsplit(place)
    whole = f"{parts.netloc.rpartition('@')[2]}/{parts.path}/{parts.query}" if parts.scheme else place.split("/dev/")[1]
    return Path(re.sub(r"[^\w.]+", "-", whole).strip("-.") + RECORDED)


def _placed(listed: dict[str, Path], target: str, mode: str) -> Iterator[tuple[str, str]]:
    """Each source with its target. Sources that would get one name get different ones.

    Those whose suffix changes keep the old one inside (`a.avi.mp4`); whatever is still the same is numbered.
    """
    named = {source: _named(source, name, mode) for source, name in listed.items()}
    count = Counter(named.values())
    taken: set[str] = set()
    for source, name in named.items():
        before = listed[source]
        if count[name] > 1 and name != before:
            name = name.with_name(before.name + name.suffix)
        whole = target.replace(NAME, name.stem) if is_live(target) else str(Path(target, name))
        place = next(place for place in _numbered(whole) if place not in taken)
        taken.add(place)
        yield source, place


def _named(source: str, name: Path, mode: str) -> Path:
    suffix = name.suffix.lower()
    if kind_of(source) == STILL:
        if suffix in STILLS and not (mode == "cutout" and STILLS[suffix] == ".jpg"):
            return name
        return name.with_suffix(".png")
    return name if suffix in KEPT else name.with_suffix(".mp4")


def _check(job: Job) -> None:
    target = Path(job.target)
    if job.mode == "cutout" and not job.still:
        video = without_secrets(job.source)
        raise BadOption("mode", f"{video}: a video has no alpha; expected another mode than cutout")
    if job.still:
        check_suffix(target, job.mode)
    elif not is_live(job.target) and target.suffix.lower() in STILLS:
        raise BadOption("OUT", without_secrets(f"{job.target} is a still's name, and {job.source} is a video"))
    if is_live(job.source) or is_live(job.target):
        return
    source = Path(job.source)
    if target.exists() and source.exists() and target.samefile(source):
        raise BadOption("OUT", f"{target} is IN itself")
