"""Pictures as a camera of 16:9 sees them: those of a split, cut around their people.

Most portraits of val are upright, and cameras of calls are not. A network of 144x256 is to be compared with one of
192x192 on what it is made for.
"""

import numpy as np

SHAPE = 16 / 9
ABOVE = 0.08
"""Room above the head, in heights of the cut."""


class Wide:
    """`portraits` with every picture and mask cut to 16:9."""

    def __init__(self, portraits):
        self._portraits = portraits
        self.part = portraits.part

    def __len__(self):
        return len(self._portraits)

    def __getitem__(self, index):
        """(image, mask)."""
        return cut(*self._portraits[index])


def cut(image, mask):
    """The largest part of 16:9 of a picture and its mask: from a little above the heads, or around the people."""
    height, width = mask.shape
    if width > height * SHAPE:
        wanted = round(height * SHAPE)
        left = min(max(round(_middle(mask)) - wanted // 2, 0), width - wanted)
        return image[:, left : left + wanted], mask[:, left : left + wanted]
    wanted = round(width / SHAPE)
    rows = np.flatnonzero((mask > 127).any(axis=1))
    first = rows[0] if rows.size else 0
    top = min(max(round(first - ABOVE * wanted), 0), height - wanted)
    return image[top : top + wanted], mask[top : top + wanted]


def _middle(mask):
    columns = np.flatnonzero((mask > 127).any(axis=0))
    return columns.mean() if columns.size else mask.shape[1] / 2
