"""A data folder of one person before many rooms, for a training of a few steps."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from tests.people import room, shown_person

SIZE = (320, 240)


def draw(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(picture, mask, the room behind) as BGR and grey."""
    person = shown_person()
    image = cv2.resize(person.image, (240, 320))
    mask = cv2.resize(person.mask, (240, 320), interpolation=cv2.INTER_NEAREST)
    behind = room(240, 320, seed=index)
    return np.where(mask[..., None] > 0, image, behind), mask, behind


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures to train on, two of val, eight rooms and a clip, in the layout training reads."""
    place = tmp_path_factory.mktemp("data")
    for name in ("images", "masks", "backgrounds", "clips/walk/images", "clips/walk/masks"):
        (place / name).mkdir(parents=True)
    lines = ["name,split"]
    for i in range(8):
        shown, mask, behind = draw(i)
        cv2.imwrite(str(place / "images" / f"self_{i:04d}.jpg"), shown)
        cv2.imwrite(str(place / "masks" / f"self_{i:04d}.png"), mask)
        cv2.imwrite(str(place / "backgrounds" / f"room_{i}.jpg"), behind)
        lines.append(f"self_{i:04d},{'val' if i > 5 else 'train'}")
    (place / "index.csv").write_text("\n".join(lines) + "\n")
    shown, mask, _ = draw(9)
    for i in range(8):
        shift = np.float32([[1, 0, 3 * i], [0, 1, 0]])
        for kind, picture, suffix in (("images", shown, "jpg"), ("masks", mask, "png")):
            moved = cv2.resize(cv2.warpAffine(picture, shift, (240, 320)), SIZE, interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(place / "clips" / "walk" / kind / f"{i:05d}.{suffix}"), moved)
    return place


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a module's command line in this process: another one takes seconds of CPU for its imports."""

    def run(module: ModuleType, *arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        module.main()

    return run
