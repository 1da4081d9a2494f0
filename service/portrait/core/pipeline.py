"""The synchronous core: a frame in, its result out. No asyncio, no network."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from portrait.admission.quality import Quality
from portrait.core.auto_framing import WHOLE, AutoFraming, Window, show
from portrait.core.compositors import Compositor, Options
from portrait.core.compositors.blend import matte, resize
from portrait.core.guided_filter import follow_edges, halve, make_guide
from portrait.core.mask_reuse import Carried, MaskReuse
from portrait.core.scene_change import GAP, LastFrame
from portrait.core.segmenters import Segmenter
from portrait.errors import BadOption
from portrait.image.frame import Frame, Mask, Plane
from portrait.metrics import Metrics

GREY_MODES = ("mask", "alpha")
"""The modes whose result is one number per pixel. It is for use with the whole frame, so they are never framed."""


@dataclass(frozen=True, slots=True)
class Result:
    """A frame, the mask that belongs to it, and how to join them."""

    frame: Frame
    mask: Mask
    prior: Mask
    """The network's output: the prior of the next frame. `mask` is it with its contour on the frame's edges."""
    options: Options
    compositor: Compositor
    recorder: Metrics
    failure: Exception | None = None
    """Why the mask is empty, if segmentation failed."""
    carried: Carried = ""
    """Why the mask is an earlier frame's, if it is reused."""
    window: Window = WHOLE
    """The part of the frame that is shown when it is composed."""

    def compose(self) -> Frame:
        """The output picture. Composed when asked for: a client that wants the mask alone does not pay for it."""
        with self.recorder.stage("compose"):
            return self.compositor.compose(*show(self.window, self.frame, self.mask))

    def grey(self, size: tuple[int, int] | None = None) -> Plane:
        """(height, width) uint8: the probability in mode mask, else the share of the person in each pixel.

        `size` is (width, height), None the source picture's. At the mask's own size nothing is resized.
        """
        width, height = size or self.frame.came
        if self.options.mode == "mask":
            same = (width, height) == (self.mask.width, self.mask.height)
            return self.mask.values if same else resize(self.mask.values, width, height)
        return matte(self.frame, self.mask, self.options.steep, width, height)

    def picture(self) -> Plane | Frame:
        """What the mode gives: (height, width) uint8 of modes mask and alpha, else a Frame, with alpha of cutout."""
        if self.options.mode not in GREY_MODES:
            return self.compose()
        with self.recorder.stage("compose"):
            return self.grey()


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
        self._last: LastFrame | None = None
        self._resumed: Mask | None = None
        """A prior made elsewhere, until a mask has been made of it."""

    def run(self, frame: Frame, options: Options, compositor: Compositor, quality: Quality = Quality.FULL) -> Result:
        """Segment `frame` at a quality level.

        A failure of the network does not raise: the result has an empty mask, so that it shows nothing of the
        background, and `failure` says why.
        """
        failure = None
        with self._recorder.stage("segment"):
            guide = make_guide(frame, self._mask_width, self._mask_height)
            last = self._last
            if is_new := last is not None and last.is_unrelated(frame, guide, self._gap):
                self.reset()
            carried, earlier = self._reuse.find(guide, quality)
            if carried == "still" and earlier is not None and self._last is not None:
                self._last = replace(self._last, arrived=frame.arrived)
                mask, prior = earlier.mask, earlier.prior
                return self._framed(Result(frame, mask, prior, options, compositor, self._recorder, carried=carried))
            try:
                prior = self._segment(frame, quality) if earlier is None else earlier.prior
            except Exception as raised:  # whatever a runtime raises, the background must not be sent
                self.reset()
                failure, prior = raised, Mask.empty(self._mask_width, self._mask_height)
            mask = follow_edges(prior, guide)
        if not carried and failure is None:
            self._reuse.keep(guide, prior, mask)
        person = np.asarray(cv2.threshold(halve(prior.values), 127, 255, cv2.THRESH_BINARY)[1], np.uint8)
        if is_new and last is not None and last.is_cut(frame, guide, person):
            self._framing.forget()
        self._last = LastFrame(frame.came, frame.arrived, guide, person)
        return self._framed(Result(frame, mask, prior, options, compositor, self._recorder, failure, carried))

    def _framed(self, result: Result) -> Result:
        """The result with the window of its frame, if framing is on."""
        if not result.options.framing or result.options.mode in GREY_MODES:
            self._framing.forget()
            return result
        return replace(result, window=self._framing.follow(result.mask, result.frame.seconds))

    def _segment(self, frame: Frame, quality: Quality) -> Mask:
        self._choose(quality)
        mask = self._segmenter.segment(frame)
        self._resumed = None
        return mask

    def reset(self) -> None:
        """Forget the prior and treat the next frame as the first."""
        self._segmenter.reset()
        self._reuse.forget()
        self._resumed = None

    def resume(self, prior: Mask) -> None:
        """Continue from a mask made elsewhere; the next frame may have any size.

        Raises:
            BadOption: the mask does not have the model's size.
        """
        if (prior.width, prior.height) != (self._mask_width, self._mask_height):
            expected = f"the model's {self._mask_width}x{self._mask_height}"
            raise BadOption("prior", f"got {prior.width}x{prior.height}, expected {expected}")
        self._segmenter.resume(prior)
        self._resumed = prior

    def close(self) -> None:
        """Close the segmenters."""
        self._best.close()
        if self._smaller is not self._best:
            self._smaller.close()

    def _choose(self, quality: Quality) -> None:
        """Switch to the best segmenter or to the smaller one, which goes on from the last mask."""
        wanted = self._best
        if quality >= Quality.SMALLER and self._open_smaller is not None:
            if self._smaller is self._best:
                self._smaller = self._open_smaller()
            wanted = self._smaller
        if wanted is not self._segmenter:
            self._segmenter = wanted
            prior = self._resumed if self._reuse.last is None else self._reuse.last.prior
            if prior is None:
                wanted.reset()
            else:
                wanted.resume(prior)
