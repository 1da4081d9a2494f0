"""The synchronous core: a frame in, its result out. No asyncio, no network.

What a pipeline keeps of earlier frames decides five things: whether their mask is a prior of this frame at all
(LastFrame), whether this frame takes it as its own mask (MaskReuse), which person is chosen (PersonChooser), where
the framed window stands (AutoFraming), and what the modes that hide the person hide of them (HiddenArea).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from portrait.admission.quality import Quality
from portrait.core.auto_framing import AutoFraming, Window, show
from portrait.core.compositors import Compositor, Options
from portrait.core.compositors.modes import GREY_MODES, HIDING_MODES, BlurPersonCompositor, matte, resize
from portrait.core.guided_filter import follow_edges, halve, make_fine_guide
from portrait.core.hiding import HiddenArea
from portrait.core.mask_reuse import Carried, MaskReuse, SegmentedFrame, make_person
from portrait.core.people import ALL, PersonChooser
from portrait.core.presence import Presence, PresenceRule, PresenceTracker
from portrait.core.segmenters import Model, Segmenter
from portrait.errors import BadOption
from portrait.image.frame import Frame, Mask, Plane
from portrait.metrics import Metrics

logger = logging.getLogger(__name__)

GAP = 1.0
"""Seconds without a frame after which the mask no longer says anything about the picture."""

CHANGED = 10.0
"""Levels of luma by which a person's pixels may differ, on average, from one frame to the next before their mask is no
prior any more. Measured on generated sequences: up to 1 when nothing moves but noise, 7 in the median when a person
sways by 2 % of the picture's width, 28 by 15 %, and at least 31 when they are gone.
"""

NOBODY = Presence(False, 0.0, None)


@dataclass(frozen=True, slots=True)
class Result:
    """A frame, the mask that belongs to it, and how to join them."""

    frame: Frame
    mask: Mask
    prior: Mask
    """The network's output: the prior of the next frame. `mask` is it with its contour on the frame's edges."""
    options: Options
    compositor: Compositor
    metrics: Metrics
    failure: Exception | None = None
    """Why the mask is empty, if segmentation failed."""
    carried: Carried = ""
    """Why the mask is an earlier frame's, if it is reused."""
    window: Window | None = None
    """The part of the frame that is shown when it is composed; None: all of it."""
    hidden: Mask | None = None
    """What is hidden when it is composed, in HIDING_MODES; None in other modes."""
    presence: Presence = NOBODY
    """Whether a person is in the picture; after a failure, what was so before."""

    def compose(self) -> Frame:
        """The output picture. Composed when asked for: a client that wants the mask alone does not pay for it."""
        with self.metrics.stage("compose"):
            mask = self.mask if self.hidden is None else self.hidden
            if self.window is None:
                return self.compositor.compose(self.frame, mask)
            return self.compositor.compose(*show(self.window, self.frame, mask))

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
        with self.metrics.stage("compose"):
            return self.grey()


@dataclass(frozen=True, slots=True)
class LastFrame:
    """What is kept of a frame to compare the next one with."""

    size: tuple[int, int]
    """(width, height) of the source picture."""
    arrived: float
    guide: Plane
    """Its luma at half the mask's size."""
    person: Plane
    """255 where the person was, at the guide's size."""

    def is_unrelated(self, frame: Frame, guide: Plane, gap: float) -> bool:
        """Whether `frame` has another size, comes after a gap, or shows something else where the person was."""
        if frame.came != self.size or frame.arrived - self.arrived > gap:
            return True
        return cv2.mean(cv2.absdiff(guide, self.guide), self.person)[0] > CHANGED

    def is_cut(self, frame: Frame, guide: Plane, person: Plane) -> bool:
        """Whether `frame`, with this person in it, is another scene: of another size, or with another background.

        That is when a third of what neither person hides has changed: a person who moves fast uncovers less.
        """
        if frame.came != self.size:
            return True
        changed = cv2.threshold(cv2.absdiff(guide, self.guide), CHANGED, 255, cv2.THRESH_BINARY)[1]
        return cv2.mean(changed, cv2.bitwise_not(cv2.max(self.person, person)))[0] > 255 / 3


class Pipeline:
    """A segmenter and the rules about its prior. Used by one thread.

    `open_smaller` opens a cheaper one with masks of the same size, for when quality goes down; after `gap` seconds
    without a frame the prior is forgotten. With `on_change` the network runs only when the contour may have moved.
    `presence` says when a person counts as present. `finer` is a model that stands in for the segmenter's when there
    is CPU to spare; it may have masks of another size.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        mask_size: tuple[int, int],
        metrics: Metrics,
        open_smaller: Callable[[], Segmenter] | None = None,
        gap: float = GAP,
        presence: PresenceRule | None = None,
        *,
        on_change: bool = False,
        finer: Model | None = None,
    ) -> None:
        self._segmenter, self._metrics = segmenter, metrics
        self._best, self._smaller, self._open_smaller = segmenter, segmenter, open_smaller
        self._reuse, self._gap = MaskReuse(on_change), gap
        self._framing: AutoFraming | None = None
        """While framing is on; a new one after a cut."""
        self._chooser: PersonChooser | None = None
        """While one person is chosen; a new one after a cut."""
        self._hiding: HiddenArea | None = None
        """While the mode is one of HIDING_MODES."""
        self._tracker, self._presence = PresenceTracker(presence or PresenceRule()), NOBODY
        self._size, (self._mask_width, self._mask_height) = mask_size, mask_size
        self._finer, self._uses_finer = finer, False
        self._finer_segmenter: Segmenter | None = None
        """Opened when it is used first."""
        self._last: LastFrame | None = None
        self._resumed: Mask | None = None
        """A prior made elsewhere, until a mask has been made of it."""

    def run(
        self,
        frame: Frame,
        options: Options,
        compositor: Compositor,
        quality: Quality = Quality.FULL,
        *,
        finer: bool = False,
    ) -> Result:
        """Segment `frame` at a quality level, or by the finer model if there is one.

        A failure of the network does not raise: the result has an empty mask, so that it shows nothing of the
        background, and `failure` says why. Where the mode hides the person, the whole picture is blurred.
        """
        failure = None
        with self._metrics.stage("segment"):
            # What is hidden and who is chosen is kept from mask to mask, which must have one size.
            is_kept = options.mode in HIDING_MODES or options.people != ALL
            self._use_finer(finer and quality is Quality.FULL and not is_kept)
            fine = make_fine_guide(frame, self._mask_width, self._mask_height)
            guide = halve(fine)
            last = self._last
            if is_new := last is not None and last.is_unrelated(frame, guide, self._gap):
                self.reset()
            reuse = self._reuse.find(guide, quality)
            if reuse is not None:
                prior, person = reuse.prior, reuse.person
                mask = reuse.mask or follow_edges(prior, fine if prior.fine else guide)
            else:
                try:
                    prior = self._segment(frame.with_small(fine), quality)
                except Exception as raised:  # whatever a runtime raises, the background must not be sent
                    self.reset()
                    failure, prior = raised, Mask.empty(self._mask_width, self._mask_height)
                mask = follow_edges(prior, fine if prior.fine else guide)
                person = make_person(prior)
                if failure is None:
                    self._reuse.keep(SegmentedFrame(prior, mask, guide, person))
        carried: Carried = "" if reuse is None else reuse.reason
        if is_new and last is not None and last.is_cut(frame, guide, person):
            self._framing = self._chooser = None
        self._last = LastFrame(frame.came, frame.arrived, guide, person)
        if failure is None:  # a failure says nothing about who is there
            mask = self._chosen(mask, frame, options.people)
            self._presence = self._tracker.follow(mask, frame.seconds)
        hidden = self._hidden(mask, frame, options.mode, failure is not None)
        if self._hiding is not None and self._hiding.everything:
            compositor = BlurPersonCompositor(options)
        window = self._window(mask, frame, options)
        return Result(
            frame, mask, prior, options, compositor, self._metrics, failure, carried, window, hidden, self._presence
        )

    def _chosen(self, mask: Mask, frame: Frame, people: str) -> Mask:
        """The mask of the person who is asked for."""
        if people == ALL:
            self._chooser = None
            return mask
        if self._chooser is None or self._chooser.which != people:
            self._chooser = PersonChooser(people)
        return self._chooser.choose(mask, frame.seconds)

    def _hidden(self, mask: Mask, frame: Frame, mode: str, failed: bool) -> Mask | None:
        """What the mode hides of the picture; everything after a failure. None: the mode does not hide the person."""
        if mode not in HIDING_MODES:
            self._hiding = None
            return None
        if self._hiding is None:
            self._hiding = HiddenArea()
        return self._hiding.follow(mask, frame.seconds, failed)

    def _window(self, mask: Mask, frame: Frame, options: Options) -> Window | None:
        """The window of the frame, if framing is on; a grey result is for use with the whole frame."""
        if not options.framing or options.mode in GREY_MODES:
            self._framing = None
            return None
        if self._framing is None:
            self._framing = AutoFraming()
        return self._framing.follow(mask, frame.seconds)

    def _segment(self, frame: Frame, quality: Quality) -> Mask:
        self._choose(quality)
        if self._reuse.is_elsewhere and self._reuse.last is not None:
            # Not only where the person was: a segmenter that looks there looks at the whole frame once.
            self._segmenter.resume(self._reuse.last.prior)
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
        for segmenter in {self._best, self._smaller, self._finer_segmenter or self._best}:
            segmenter.close()

    def _use_finer(self, wanted: bool) -> None:
        """Switch to the finer model or back; the other continues from the last mask, at its own size."""
        if self._finer is None or wanted == self._uses_finer:
            return
        if self._finer_segmenter is None:
            try:
                self._finer_segmenter = self._finer.open()
            except Exception:  # whatever a runtime raises: the stream continues without it
                logger.exception("the finer model cannot be opened")
                self._finer = None
                return
        self._uses_finer = wanted
        self._segmenter = self._finer_segmenter if wanted else self._best
        self._mask_width, self._mask_height = (self._finer.width, self._finer.height) if wanted else self._size
        prior = self._resumed if self._reuse.last is None else self._reuse.last.prior
        self._reuse.forget()
        self._last = None
        if prior is None:
            self._segmenter.reset()
        else:
            self._segmenter.resume(Mask(resize(prior.values, self._mask_width, self._mask_height)))

    def _choose(self, quality: Quality) -> None:
        """Switch to the best segmenter or to the smaller one, which continues from the last mask."""
        if self._uses_finer:
            return
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
