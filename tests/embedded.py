"""What the tests know of the embedded model: its size, whichever file that is."""

from portrait.core.segmenters import EMBEDDED, open_model

DEFAULT = open_model(EMBEDDED / "portrait.tflite")
SIDE = DEFAULT.width
"""Pixels of its input and mask, which are square."""

FINE = open_model(EMBEDDED / "portrait-fine.tflite").width
"""Those of the model that stills get by default."""
