"""The floors: imports point down only, and variants do not know each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "service" / "portrait"

# A module belongs to the first prefix it starts with; it may import from lower floors and from its own package.
FLOORS = {
    "portrait.__main__": 11,
    "portrait.cli": 10,
    "portrait.commands": 10,
    "portrait.worker": 10,
    "portrait.app": 9,
    "portrait.running": 8,
    "portrait.trial": 7,
    "portrait.calibration": 7,
    "portrait.doctor": 7,
    "portrait.supervisor": 6,
    "portrait.load": 7,
    "portrait.transports": 6,
    "portrait.bench": 5,
    "portrait.levels": 6,
    "portrait.scrape": 0,
    "portrait.sessions": 5,
    "portrait.session": 4,
    "portrait.turn": 3,
    "portrait.pipeline": 2,
    "portrait.capacity": 2,
    "portrait.numbers": 2,
    "portrait.terms": 2,
    "portrait.latest": 2,
    "portrait.ownthread": 2,
    "portrait.client": 2,
    "portrait.edges": 1,
    "portrait.segmenters": 1,
    "portrait.compositors": 1,
    "portrait.backgrounds": 3,
    "portrait.films": 2,
    "portrait.film": 0,
    "portrait.framing": 1,
    "portrait.metrics": 1,
    "portrait.security": 1,
    "portrait.tracing": 1,
    "portrait.video": 1,
    "portrait.pictures": 0,
    "portrait.mask": 0,
    "portrait.reuse": 1,
    "portrait.governor": 0,
    "portrait.costs": 0,
    "portrait.settings": 0,
    "portrait.board": 0,
    "portrait.meeting": 1,
    "portrait.child": 5,
    "portrait.signals": 1,
    "portrait.cgroup": 0,
    "portrait.launch": 0,
    "portrait.logs": 0,
    "portrait.v1": 0,
    "portrait.kserve": 0,
    "portrait.frame": -1,
    "portrait.errors": -1,
    "portrait.quality": -1,
    "portrait": -2,
}

GENERATED = {"v1", "kserve"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not GENERATED & set(path.parts))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module: str) -> tuple[str, int]:
    return next(
        (prefix, level) for prefix, level in FLOORS.items() if module == prefix or module.startswith(prefix + ".")
    )


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            source = node.module or ""
            folder = PACKAGE.parent / Path(*source.split("."))
            found |= {source} | {
                f"{source}.{alias.name}" for alias in node.names if (folder / f"{alias.name}.py").exists()
            }
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    mine, level = floor(module_name(path))
    wrong = [
        other
        for other in imports(path)
        if other.startswith("portrait.") and floor(other)[0] != mine and floor(other)[1] >= level
    ]
    assert not wrong, f"{module_name(path)} imports {wrong}, which is not below it"


@pytest.mark.parametrize("path", [path for path in MODULES if "transports" in path.parts], ids=module_name)
def test_transports_do_not_know_each_other(path: Path) -> None:
    parts = module_name(path).split(".")
    others = {name.split(".")[2] for name in imports(path) if name.startswith("portrait.transports.")}
    assert others <= set(parts[2:3]), f"{module_name(path)} imports the transports {others}"


@pytest.mark.parametrize("name", ["frame.py", "mask.py", "errors.py"])
def test_the_ground_floor_stands_on_numpy_and_the_standard_library(name: str) -> None:
    foreign = {other.split(".")[0] for other in imports(PACKAGE / name)} & {"cv2", "av", "grpc", "aiohttp", "aiortc"}
    assert not foreign


@pytest.mark.parametrize("name", ["pipeline.py", "segmenters", "compositors", "pictures.py", "video.py"])
def test_the_core_knows_no_asyncio(name: str) -> None:
    place = PACKAGE / name
    for path in [place] if place.is_file() else sorted(place.glob("*.py")):
        assert "asyncio" not in imports(path)


def test_sessions_touch_no_pixels() -> None:
    assert not {"numpy", "cv2", "av", "grpc"} & imports(PACKAGE / "session.py")


def test_no_file_outgrows_its_room() -> None:
    long = {module_name(path): n for path in MODULES if (n := len(path.read_text().splitlines())) > 300}
    assert not long
