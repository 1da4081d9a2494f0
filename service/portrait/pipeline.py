"""The synchronous core: a frame in, its result out. No asyncio, no network."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from portrait.compositors import Compositor, Options
from portrait.edges import follow_edges
from portrait.errors import BadOption
from portrait.frame import Frame
from portrait.mask import Mask
from portrait.quality import Quality
from portrait.reuse import Carried, Reuse
from portrait.segmenters import Segmenter

GAP = 1.0
"""Seconds without a frame after which the prior no longer says anything about the picture."""

P = TypeVar("P", contravariant=True)
W = TypeVar("W", covariant=True)


class Recorder(Protocol):
    """What the core asks of metrics."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Measure the block as one stage: wall time and this thread's CPU time."""


@dataclass(frozen=True, slots=True)
class Result:
    """A frame, the mask that belongs to it, and how to join them."""

    frame: Frame
    mask: Mask
    prior: Mask
    """What the network said: the prior of the next frame. `mask` is it with its contour on the picture's edges."""
    options: Options
    compositor: Compositor
    recorder: Recorder
    failure: Exception | None = None
    """Why the mask is empty, if segmentation failed."""
    carried: Carried = ""
    """Why the mask is an earlier frame's, if it is."""

    def compose(self) -> Frame:
        """The output picture. Made when asked for: who wants the mask alone pays for no picture."""
        with self.recorder.stage("compose"):
            return self.compositor.compose(self.frame, self.mask)


class Codec(Protocol[P, W]):
    """A transport's pair of pure functions, run on the session's thread."""

    @property
    def modes(self) -> Collection[str]:
        """The output modes the transport can carry."""

    def decode(self, picture: P, arrived: float) -> Frame:
        """A Frame of whatever the transport received at `arrived`, in seconds of the monotonic clock.

        Raises:
            BadPicture: it cannot be one.
        """

    def encode(self, result: Result, picture: P) -> W:
        """What the transport sends for the result of `picture`."""


class Pipeline:
    """A segmenter and the rules about its prior. Used by one thread.

    `open_smaller` opens a cheaper one with masks of the same size, for when quality goes down.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        mask_size: tuple[int, int],
        recorder: Recorder,
        open_smaller: Callable[[], Segmenter] | None = None,
    ) -> None:
        self._segmenter, self._recorder = segmenter, recorder
        self._best, self._smaller, self._open_smaller = segmenter, segmenter, open_smaller
        self._reuse = Reuse()
        self._mask_width, self._mask_height = mask_size
        self._previous: tuple[int, int, float] | None = None

    def run(self, frame: Frame, options: Options, compositor: Compositor, quality: Quality = Quality.FULL) -> Result:
        """Segment `frame`, as well as `quality` allows.

        Never raises because of the network: it fails closed with an empty mask and says why.
        """
        self._forget_if_stale(frame)
        carried = self._reuse.why(frame, quality)
        try:
            prior, mask = self._carry(frame, carried) if carried else self._segment(frame, quality)
        except Exception as failure:  # whatever a runtime raises, the camera's background must not go out
            self.reset()
            mask = Mask.empty(self._mask_width, self._mask_height)
            return Result(frame, mask, mask, options, compositor, self._recorder, failure)
        return Result(frame, mask, prior, options, compositor, self._recorder, carried=carried)

    def _segment(self, frame: Frame, quality: Quality) -> tuple[Mask, Mask]:
        self._choose(quality)
        with self._recorder.stage("segment"):
            prior = self._segmenter.segment(frame)
            mask = follow_edges(prior, frame.y)
        self._reuse.keep(frame, prior, mask, quality)
        return prior, mask

    def _carry(self, frame: Frame, why: Carried) -> tuple[Mask, Mask]:
        """The last mask; brought to the edges of `frame` where something has moved."""
        assert self._reuse.prior is not None
        assert self._reuse.mask is not None
        if why == "still":
            return self._reuse.prior, self._reuse.mask
        with self._recorder.stage("segment"):
            return self._reuse.prior, follow_edges(self._reuse.prior, frame.y)

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
            if self._reuse.prior is None:
                wanted.reset()
            else:
                wanted.resume(self._reuse.prior)

    def _forget_if_stale(self, frame: Frame) -> None:
        if self._previous is not None:
            width, height, arrived = self._previous
            if (width, height) != (frame.width, frame.height) or frame.arrived - arrived > GAP:
                self.reset()
        self._previous = frame.width, frame.height, frame.arrived
