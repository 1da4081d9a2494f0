"""Auto-framing: shows the part of the picture where the person is, at the picture's own size.

The wanted window has the picture's shape and goes around everything that the mask shows, with MARGIN of its size above
and beside it; it is at least LEAST of the picture wide. A new aim is taken only when the wanted window differs from the
current aim by more than SLACK of its side. The window then moves there, covering half of the way in HALF seconds and
never more than FASTEST per second. When no person is in the picture, it stays for PATIENCE seconds and then widens to
the whole picture. In the first frame it is where it is wanted at once.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from portrait.image.frame import Frame, Mask, Plane

MARGIN = 0.2
LEAST = 0.4
SLACK = 0.08
HALF = 0.35
FASTEST = 0.6
"""Of the picture's sides, per second."""

PATIENCE = 1.0

LONGEST_STEP = 0.2
"""Seconds between two frames, at most, that the window moves for: it does not jump after a gap."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the picture that has its shape, in fractions of its width and height."""

    left: float = 0.0
    top: float = 0.0
    side: float = 1.0

    def far_from(self, other: "Window") -> bool:
        """Whether the two differ by more than the movements of a person who sits still."""
        slack = SLACK * self.side
        centers = abs(self.left + self.side / 2 - other.left - other.side / 2), abs(self.top - other.top)
        return max(*centers, abs(self.side - other.side)) > slack

    def towards(self, aim: "Window", seconds: float) -> "Window":
        """This window `seconds` later, on its way to `aim`."""
        share, most = 1 - float(0.5 ** (seconds / HALF)), FASTEST * seconds

        def step(here: float, there: float) -> float:
            return here + min(max((there - here) * share, -most), most)

        side = step(self.side, aim.side)
        left, top = step(self.left, aim.left), step(self.top, aim.top)
        return Window(min(max(left, 0.0), 1 - side), min(max(top, 0.0), 1 - side), side)


WHOLE = Window()


class AutoFraming:
    """Moves the window from frame to frame of one scene. Used by one thread."""

    def __init__(self) -> None:
        self._window: Window | None = None
        self._aim = WHOLE
        self._time, self._seen = 0.0, 0.0

    def follow(self, mask: Mask, seconds: float) -> Window:
        """The window for the frame of `mask`, whose media time is `seconds`."""
        step = min(max(seconds - self._time, 0.0), LONGEST_STEP)
        self._time = seconds
        wanted = _wanted(mask)
        if wanted is not None:
            self._seen = seconds
        elif not 0 <= seconds - self._seen < PATIENCE:
            wanted = WHOLE
        if self._window is None:
            self._window = self._aim = wanted or WHOLE
            return self._window
        if wanted is not None and wanted.far_from(self._aim):
            self._aim = wanted
        self._window = self._window.towards(self._aim, step)
        return self._window


def _wanted(mask: Mask) -> Window | None:
    """The window around all persons; None without one."""
    # Erosion removes specks.
    solid = cv2.erode(cv2.threshold(mask.values, 127, 255, cv2.THRESH_BINARY)[1], np.ones((5, 5), np.uint8))
    x, y, width, height = cv2.boundingRect(solid)
    if not width:
        return None
    across, down = width / mask.width, height / mask.height
    side = min(max(across * (1 + 2 * MARGIN), down * (1 + MARGIN), LEAST), 1.0)
    left, top = x / mask.width + across / 2 - side / 2, y / mask.height - MARGIN * side
    return Window(min(max(left, 0.0), 1 - side), min(max(top, 0.0), 1 - side), side)


def show(window: Window, frame: Frame, mask: Mask) -> tuple[Frame, Mask]:
    """The part of `frame` within the window, enlarged to the frame's size, and the same part of the mask."""
    if window.side >= 1:
        return frame, mask
    # The window lies on whole chroma samples, so that all planes show the same part; the mask is cut to exactly that.
    width, height = max(1, round(window.side * frame.u.shape[1])), max(1, round(window.side * frame.u.shape[0]))
    left = min(round(window.left * frame.u.shape[1]), frame.u.shape[1] - width)
    top = min(round(window.top * frame.u.shape[0]), frame.u.shape[0] - height)
    y = _part(frame.y, 2 * left, 2 * top, 2 * width, 2 * height)
    u, v = (_part(plane, left, top, width, height) for plane in (frame.u, frame.v))
    alpha = None if frame.alpha is None else _part(frame.alpha, 2 * left, 2 * top, 2 * width, 2 * height)
    across, down = mask.width / frame.width, mask.height / frame.height
    sides = min(2 * width, frame.width - 2 * left), min(2 * height, frame.height - 2 * top)
    scale = sides[0] / frame.width, sides[1] / frame.height
    # The centres of pixels are at halves.
    matrix = np.array(
        [
            [scale[0], 0, 2 * left * across + scale[0] / 2 - 0.5],
            [0, scale[1], 2 * top * down + scale[1] / 2 - 0.5],
        ]
    )
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (mask.width, mask.height)
    values = cv2.warpAffine(mask.values, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return frame.with_planes(y, u, v, alpha), Mask(np.asarray(values, np.uint8))


def _part(plane: Plane, left: int, top: int, width: int, height: int) -> Plane:
    part, size = plane[top : top + height, left : left + width], (plane.shape[1], plane.shape[0])
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.uint8)
