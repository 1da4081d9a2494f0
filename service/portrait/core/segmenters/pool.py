"""Segmenters that are kept open between pictures which have nothing to do with each other."""

from collections import deque
from threading import Lock

from portrait.core.segmenters.base import DerivedModel, Model, Segmenter
from portrait.image.frame import Frame, Mask

IDLE = 2
"""Segmenters kept open while nothing uses them; each takes some megabytes."""


class SegmenterPool(DerivedModel):
    """A Model whose segmenters are reused: for stills, where opening one takes longer than using it.

    `open` lends an idle segmenter, or opens another one; closing what is lent resets it and gives it back. At most
    `idle` are kept. Any thread may open and close; what is lent is used by one thread at a time, as every segmenter is.
    """

    def __init__(self, model: Model, idle: int = IDLE) -> None:
        super().__init__(model)
        self._most = idle
        self._idle: deque[Segmenter] = deque()
        self._lock, self._closed = Lock(), False

    def open(self) -> Segmenter:
        """A segmenter without a prior."""
        with self._lock:
            segmenter = self._idle.pop() if self._idle else None
        return _Lent(self, self.model.open() if segmenter is None else segmenter)

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
        for segmenter in idle:
            segmenter.close()

    def take_back(self, segmenter: Segmenter) -> None:
        """Keep a segmenter that was lent and is in order, or close it if there are enough."""
        segmenter.reset()
        with self._lock:
            kept = not self._closed and len(self._idle) < self._most
            if kept:
                self._idle.append(segmenter)
        if not kept:
            segmenter.close()


class _Lent:
    """A segmenter of a pool, until it is closed."""

    def __init__(self, pool: SegmenterPool, segmenter: Segmenter) -> None:
        self._pool, self._segmenter = pool, segmenter
        self._closed = self._failed = False

    def segment(self, frame: Frame) -> Mask:
        """The mask of `frame`, which becomes the prior of the next one.

        Raises:
            SegmentationFailed: the network stopped or gave values that are no probabilities.
        """
        try:
            return self._segmenter.segment(frame)
        except BaseException:
            self._failed = True  # nothing else may get this one
            raise

    def reset(self) -> None:
        """Forget the prior: the next frame is a first frame."""
        self._segmenter.reset()

    def resume(self, prior: Mask) -> None:
        """Take `prior`, of the model's size, as the mask before the next frame."""
        self._segmenter.resume(prior)

    def close(self) -> None:
        """Give the segmenter back, or close it if it has failed. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._failed:
            self._segmenter.close()
        else:
            self._pool.take_back(self._segmenter)
