"""Mask: the person's probability in every pixel."""

from dataclasses import dataclass

import numpy as np

from portrait.image.frame import Plane


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Person probability at the network's own size; resized only where it is used."""

    values: Plane
    """(height, width) uint8, 0 = background, 255 = person."""

    @property
    def width(self) -> int:
        """Pixels per row."""
        return int(self.values.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.values.shape[0])

    @classmethod
    def empty(cls, width: int, height: int) -> "Mask":
        """A mask without a person. Composing with it shows no pixel of the camera: so the service fails closed."""
        return cls(np.zeros((height, width), np.uint8))
