"""The synchronous core: a frame in, its result out. No asyncio, no network."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from portrait.admission.quality import Quality
from portrait.core.auto_framing import WHOLE, AutoFraming, Window, show
from portrait.core.compositors import Compositor, Options
from portrait.core.guided_filter import follow_edges, halve, make_guide
from portrait.core.mask_reuse import Carried, MaskReuse
from portrait.core.segmenters import Segmenter
from portrait.errors import BadOption
from portrait.image.frame import Frame, Plane
from portrait.image.mask import Mask
from portrait.metrics import Metrics

GAP = 1.0
"""Seconds without a frame after which the prior no longer says anything about the picture."""

CHANGED = 10.0
"""Levels of luma by which a person's pixels may differ, on average, from one frame to the next before their mask is no
prior any more. Measured on generated sequences: up to 1 when nothing moves but noise, 7 in the median when a person
sways by 2 % of the picture's width, 28 by 15 %, and at least 31 when they are gone.
"""

WHOLE_ONLY = ("mask", "alpha")
"""The modes that are laid over the frame elsewhere, and so are never framed."""


@dataclass(frozen=True, slots=True)
class Result:
    """A frame, the mask that belongs to it, and how to join them."""

    frame: Frame
    mask: Mask
    prior: Mask
    """What the network said: the prior of the next frame. `mask` is it with its contour on the picture's edges."""
    options: Options
    compositor: Compositor
    recorder: Metrics
    failure: Exception | None = None
    """Why the mask is empty, if segmentation failed."""
    carried: Carried = ""
    """Why the mask is an earlier frame's, if it is."""
    window: Window = WHOLE
    """The part of the frame that is shown when it is composed."""

    def compose(self) -> Frame:
        """The output picture. Made when asked for: who wants the mask alone pays for no picture."""
        with self.recorder.stage("compose"):
            return self.compositor.compose(*show(self.window, self.frame, self.mask))


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of a frame to tell whether its mask says anything about the next one."""

    size: tuple[int, int]
    """(width, height) of the picture that came."""
    arrived: float
    guide: Plane
    person: Plane
    """255 where somebody was, at the guide's size."""

    def says_nothing_about(self, frame: Frame, guide: Plane, gap: float) -> bool:
        """Whether `frame` has another size, comes after a gap, or shows something else where the person was."""
        if frame.came != self.size or frame.arrived - self.arrived > gap:
            return True
        return cv2.mean(cv2.absdiff(guide, self.guide), self.person)[0] > CHANGED

    def is_cut_from(self, frame: Frame, guide: Plane, person: Plane) -> bool:
        """Whether `frame`, with this person in it, is another scene: of another size, or with another room.

        A third of what nobody hides, then or now, has changed: more than a person uncovers who moves fast.
        """
        if frame.came != self.size:
            return True
        changed = cv2.threshold(cv2.absdiff(guide, self.guide), CHANGED, 255, cv2.THRESH_BINARY)[1]
        return cv2.mean(changed, cv2.bitwise_not(cv2.max(self.person, person)))[0] > 255 / 3


class Pipeline:
    """A segmenter and the rules about its prior. Used by one thread.

    `open_smaller` opens a cheaper one with masks of the same size, for when quality goes down; after `gap` seconds
    without a frame the prior is forgotten.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        mask_size: tuple[int, int],
        recorder: Metrics,
        open_smaller: Callable[[], Segmenter] | None = None,
        gap: float = GAP,
    ) -> None:
        self._segmenter, self._recorder = segmenter, recorder
        self._best, self._smaller, self._open_smaller = segmenter, segmenter, open_smaller
        self._reuse, self._gap, self._framing = MaskReuse(), gap, AutoFraming()
        self._mask_width, self._mask_height = mask_size
        self._seen: Seen | None = None

    def run(self, frame: Frame, options: Options, compositor: Compositor, quality: Quality = Quality.FULL) -> Result:
        """Segment `frame`, as well as `quality` allows.

        Never raises because of the network: it fails closed with an empty mask and says why.
        """
        failure = None
        with self._recorder.stage("segment"):
            guide = make_guide(frame, self._mask_width, self._mask_height)
            seen = self._seen
            if is_new := seen is not None and seen.says_nothing_about(frame, guide, self._gap):
                self.reset()
            carried, earlier = self._reuse.find(guide, quality)
            if carried == "still" and earlier is not None and self._seen is not None:
                self._seen = replace(self._seen, arrived=frame.arrived)
                mask, prior = earlier.mask, earlier.prior
                return self._framed(Result(frame, mask, prior, options, compositor, self._recorder, carried=carried))
            try:
                prior = self._segment(frame, quality) if earlier is None else earlier.prior
            except Exception as raised:  # whatever a runtime raises, the camera's background must not go out
                self.reset()
                failure, prior = raised, Mask.empty(self._mask_width, self._mask_height)
            mask = follow_edges(prior, guide)
        if not carried and failure is None:
            self._reuse.keep(guide, prior, mask)
        person = np.asarray(cv2.threshold(halve(prior.values), 127, 255, cv2.THRESH_BINARY)[1], np.uint8)
        if is_new and seen is not None and seen.is_cut_from(frame, guide, person):
            self._framing.forget()
        self._seen = Seen(frame.came, frame.arrived, guide, person)
        return self._framed(Result(frame, mask, prior, options, compositor, self._recorder, failure, carried))

    def _framed(self, result: Result) -> Result:
        """The result with the window of its frame, where framing is asked for."""
        if not result.options.framing or result.options.mode in WHOLE_ONLY:
            self._framing.forget()
            return result
        return replace(result, window=self._framing.follow(result.mask, result.frame.seconds))

    def _segment(self, frame: Frame, quality: Quality) -> Mask:
        self._choose(quality)
        return self._segmenter.segment(frame)

    def reset(self) -> None:
        """Forget the prior: the next frame is a first frame."""
        self._segmenter.reset()
        self._reuse.forget()

    def resume(self, prior: Mask) -> None:
        """Go on from a mask made elsewhere, whatever the size of the next frame.

        Raises:
            BadOption: it has not the model's size.
        """
        if (prior.width, prior.height) != (self._mask_width, self._mask_height):
            expected = f"the model's {self._mask_width}x{self._mask_height}"
            raise BadOption("prior", f"the size is {prior.width}x{prior.height}; expected {expected}")
        self._segmenter.resume(prior)

    def close(self) -> None:
        """Close what is open."""
        self._best.close()
        if self._smaller is not self._best:
            self._smaller.close()

    def _choose(self, quality: Quality) -> None:
        """Let the best segmenter or the smaller one work on; what follows goes on from the last mask."""
        wanted = self._best
        if quality >= Quality.SMALLER and self._open_smaller is not None:
            if self._smaller is self._best:
                self._smaller = self._open_smaller()
            wanted = self._smaller
        if wanted is not self._segmenter:
            self._segmenter = wanted
            if self._reuse.last is None:
                wanted.reset()
            else:
                wanted.resume(self._reuse.last.prior)
