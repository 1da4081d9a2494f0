"""Jobs: which file becomes which."""

from dataclasses import dataclass
from pathlib import Path

from portrait.errors import BadOption
from portrait.transports.files.stills import STILLS, check_suffix
from portrait.transports.files.videos import is_live

VIDEOS = (".mp4", ".mov", ".mkv", ".m4v", ".avi", ".webm", ".ts", ".y4m")
"""What is taken from a folder besides stills; a file that is named may have any suffix."""

KEPT = (".mp4", ".mov", ".mkv", ".m4v")
"""Containers that can hold the result; others become .mp4."""


@dataclass(frozen=True, slots=True)
class Job:
    """One source and its target: paths, `-`, cameras or addresses."""

    source: str
    target: str

    @property
    def still(self) -> bool:
        """Whether it is a picture and no video."""
        return not is_live(self.source) and Path(self.source).suffix.lower() in STILLS


def plan(sources: list[str], target: str, mode: str) -> list[Job]:
    """The jobs of a command: one into a file, or several, a folder's among them, into a folder.

    Raises:
        BadOption: a target that is its own source, two of one name, or a place that cannot be many.
    """
    if len(sources) == 1 and not _is_folder(sources[0]):
        jobs = [Job(sources[0], target)]
    else:
        jobs = [Job(str(path), str(Path(target, _named(name, mode)))) for path, name in _listed(sources)]
        if is_live(target) or Path(target).is_file():
            raise BadOption("OUT", f"{target} is no folder; several results need one")
        if not jobs:
            raise BadOption("IN", f"{sources[0]} holds no picture and no video")
    taken: dict[str, str] = {}
    for job in jobs:
        if job.target in taken and not is_live(job.target):
            raise BadOption("IN", f"{job.source} and {taken[job.target]} would both become {job.target}")
        taken[job.target] = job.source
        _check(job, mode)
    return jobs


def _is_folder(place: str) -> bool:
    return not is_live(place) and Path(place).is_dir()


def _listed(sources: list[str]) -> list[tuple[Path, Path]]:
    """Every file with the name it has below the target."""
    found: list[tuple[Path, Path]] = []
    for source in sources:
        if is_live(source):
            raise BadOption("IN", f"{source} has no end; expected it alone")
        path = Path(source)
        if not path.is_dir():
            found.append((path, Path(path.name)))
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*STILLS, *VIDEOS))
        found += [(file, file.relative_to(path)) for file in inside if file.is_file()]
    return found


def _named(name: Path, mode: str) -> Path:
    suffix = name.suffix.lower()
    if suffix in STILLS:
        return name.with_suffix(".png") if mode == "cutout" and STILLS[suffix] == ".jpg" else name
    return name if suffix in KEPT else name.with_suffix(".mp4")


def _check(job: Job, mode: str) -> None:
    if mode == "cutout" and not job.still:
        raise BadOption("mode", f"{job.source}: a video has no alpha; expected another mode than cutout")
    if job.still:
        check_suffix(Path(job.target), mode)
    if is_live(job.source) or is_live(job.target):
        return
    source, target = Path(job.source), Path(job.target)
    if target.exists() and source.exists() and target.samefile(source):
        raise BadOption("OUT", f"{target} is IN itself")
