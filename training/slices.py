"""Groups of val pictures that may fare differently: framing, light, how many people, hands, held things, skin.

Framing and the number of people are columns of `index.csv`, where it has them; hands and held things were marked by eye
for the selfies of val (`slices.csv`); light is the mean of the picture. Skin is the individual typology angle of the
skin-coloured pixels inside the mask (Chardin et al., 1991), in thirds: it measures how light skin was photographed,
hair of its colour included, not whose skin it is. It can show that something is wrong; it cannot show that all is well.
"""

import csv
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from training.data import PORTRAIT_PARTS

MARKED = Path(__file__).parent / "slices.csv"

LIGHT = ((80, "dark"), (170, "medium"), (256, "bright"))
"""Upper ends of the mean luma."""

SKIN = ("skin: darkest third", "skin: middle third", "skin: lightest third")
SKIN_COLOURS = (0, 135, 85), (255, 180, 135)
"""Bounds of Y, Cr, Cb (Chai and Ngan, 1999, widened)."""


def slices(portraits):
    """{label: indices} of the val pictures, no group empty; the wild parts only count for the number of people."""
    with open(MARKED, newline="") as file:
        marked = defaultdict(list)
        for row in csv.DictReader(file):
            marked[row["name"]].append(row["shows"])
    found, angles = defaultdict(list), []
    for index, row in enumerate(portraits.rows):
        if row.get("persons", "").isdigit() and int(row["persons"]) > 1:
            found["several people (wild)"].append(index)
        if portraits.part(index) not in PORTRAIT_PARTS:
            continue
        image, mask = portraits[index]
        light = next(label for end, label in LIGHT if image.mean() < end)
        framing = [f"framing: {row['framing']}"] if row.get("framing") else []
        for label in (*framing, f"light: {light}", *marked[row["name"]]):
            found[label].append(index)
        angle = typology_angle(image, mask) if portraits.part(index) != "street" else None
        if angle is not None:
            angles.append((angle, index))
    for label, third in zip(SKIN, np.array_split([index for _, index in sorted(angles)], len(SKIN)), strict=True):
        found[label] = third.tolist()
    return {label: members for label, members in sorted(found.items()) if members}


def typology_angle(image, mask):
    """Median individual typology angle in degrees of a person's skin-coloured pixels, None with too few of them."""
    skin = cv2.inRange(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb), *SKIN_COLOURS) & mask
    if np.count_nonzero(skin) < 0.01 * mask.size:
        return None
    lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)[skin > 0]
    return float(np.median(np.degrees(np.arctan2(lab[:, 0] - 50.0, np.maximum(lab[:, 2], 1e-3)))))
