"""Options: how a session's result looks."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from portrait.core.people import PEOPLE
from portrait.errors import BadOption
from portrait.image.clip import Clip
from portrait.image.frame import Frame, Plane

LEAST_FEATHER = 0.02

MOST_MARGIN = 0.2

FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Options:
    """How a session's result looks. A change replaces the whole object.

    Raises:
        BadOption: a value out of its range.
    """

    mode: str = "blur"
    color: str = "#00b140"
    """`#rrggbb`, the background of mode color, and the person in mode silhouette."""
    background: Frame | Clip | None = None
    """The background of mode image."""
    threshold: float = 0.5
    """The probability at which a pixel is half person, half background. A higher threshold makes the person smaller."""
    feather: float = 0.25
    """How far above and below the threshold a pixel is part person, part background. The network draws edges some ten
    pixels wide; blended unchanged, they show a halo of the background."""
    framing: bool = False
    """Whether the composing modes show the part of the picture where the person is (auto_framing.py)."""
    decontaminate: bool = False
    """Whether modes color, image and cutout remove the old background's light from the person's edge
    (decontaminate.py). Off by default: composing takes twice as long, for a difference that few will see."""
    margin: float = 0.03
    """How far beyond the person the modes that hide them reach, as a share of the picture's sides: a mask is often too
    small, and there that shows the person."""
    people: str = "all"
    """Which persons count: "all", or one, "largest" or "nearest-centre" (people.py)."""

    def __post_init__(self) -> None:
        parse_color(self.color)
        least = LEAST_FEATHER
        if not least <= self.threshold <= 1 - least:
            raise BadOption("threshold", f"got {self.threshold:g}, expected {least} to {1 - least}")
        # Beyond this a pixel of probability 0 would show the old background, and one of 1 the new one.
        most = min(self.threshold, 1 - self.threshold)
        if not least <= self.feather <= most + 1e-6:
            raise BadOption("feather", f"got {self.feather:g}, expected {least} to {most:g} at this threshold")
        if self.people not in PEOPLE:
            raise BadOption("people", f"got {self.people[:80]!r}, expected one of {', '.join(PEOPLE)}")
        if not 0 <= self.margin <= MOST_MARGIN:
            raise BadOption("margin", f"got {self.margin:g}, expected 0 to {MOST_MARGIN}")

    @property
    def steep(self) -> Plane:
        """(256,) uint8: the person's share in a pixel for each probability; 0 of 0, and 255 of 255."""
        x = np.clip((np.arange(256) / 255 - self.threshold) / (2 * self.feather) + 0.5, 0.0, 1.0)
        return np.rint(255 * x * x * (3 - 2 * x)).astype(np.uint8)

    def describe(self) -> Mapping[str, str | float | bool]:
        """Every option but the background, which may be a private picture."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "background"}

    def changed(self, texts: Mapping[str, str]) -> "Options":
        """These options with the values that `texts` gives, the background excepted; unknown names are ignored.

        Raises:
            BadOption: a value of the wrong type or out of its range.
        """
        values: dict[str, str | float | bool] = {
            name: texts[name] for name in ("mode", "color", "people") if name in texts
        }
        values |= {name: _number(name, texts[name]) for name in ("threshold", "feather", "margin") if name in texts}
        values |= {name: _flag(name, texts[name]) for name in ("framing", "decontaminate") if name in texts}
        return replace(self, **values)  # type: ignore[arg-type]  # each has its field's type


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadOption(name, f"got {text[:80]!r}, expected a number") from None


def _flag(name: str, text: str) -> bool:
    if text not in FLAGS:
        raise BadOption(name, f"got {text[:80]!r}, expected one of {', '.join(FLAGS)}")
    return FLAGS[text]


def parse_color(color: str) -> tuple[int, int, int]:
    """(red, green, blue) of `#rrggbb`.

    Raises:
        BadOption: written otherwise.
    """
    digits = color.removeprefix("#")
    if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
        raise BadOption("color", f"got {color!r}, expected #rrggbb")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
