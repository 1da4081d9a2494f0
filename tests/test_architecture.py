"""The floors: imports point down only, and variants do not know each other."""

from pathlib import Path

import pytest

from tests.house import FLOORS, GENERATED, MODULES, PACKAGE, PAGE, floor, imports, module_name, updated


def test_the_house_is_drawn_as_it_stands() -> None:
    assert PAGE.read_text() == updated(), "run: python -m tests.house --write"


def test_every_room_is_there() -> None:
    taken = {floor(module_name(path))[0] for path in MODULES}
    assert taken == {room for room in FLOORS if room.removeprefix("portrait.") not in GENERATED}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    mine, level = floor(module_name(path))
    wrong = [
        other
        for other in imports(path)
        if other.startswith("portrait.") and floor(other)[0] != mine and floor(other)[1] >= level
    ]
    assert not wrong, f"{module_name(path)} imports {wrong}, which is not below it"


@pytest.mark.parametrize("path", [path for path in MODULES if PACKAGE / "transports" in path.parents], ids=module_name)
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
