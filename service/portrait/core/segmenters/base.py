"""The interface of the runtimes that execute networks."""

from typing import Protocol

from portrait.image.frame import Frame, Mask


class Segmenter(Protocol):
    """One stream's interpreter and its prior mask; used by one thread only."""

    def segment(self, frame: Frame) -> Mask:
        """The mask of `frame`, which becomes the prior of the next one.

        Raises:
            SegmentationFailed: the network stopped or gave values that are no probabilities.
        """

    def reset(self) -> None:
        """Forget the prior: the next frame is a first frame."""

    def resume(self, prior: Mask) -> None:
        """Take `prior`, of the model's size, as the mask before the next frame. Without effect on a stateless model."""

    def close(self) -> None:
        """Free the interpreter's memory. Idempotent; nothing else may be called afterwards."""


class Model(Protocol):
    """A loaded network file: immutable, shared by all streams."""

    @property
    def name(self) -> str:
        """The name by which sessions select it."""

    @property
    def width(self) -> int:
        """Pixels per row of the network's input and mask."""

    @property
    def height(self) -> int:
        """Rows of the network's input and mask."""

    @property
    def stateful(self) -> bool:
        """Whether the network takes a prior mask."""

    @property
    def path(self) -> str:
        """Where the file lies."""

    @property
    def runtime(self) -> str:
        """The name of the library that executes it."""

    def open(self) -> Segmenter:
        """A segmenter with a prior of its own. Call it on the thread that will use it."""


class DerivedModel:
    """What models share that differ from another, `model`, only in the segmenters they open."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def name(self) -> str:
        """The name by which sessions select it."""
        return self.model.name

    @property
    def width(self) -> int:
        """Pixels per row of the network's input and mask."""
        return self.model.width

    @property
    def height(self) -> int:
        """Rows of the network's input and mask."""
        return self.model.height

    @property
    def stateful(self) -> bool:
        """Whether the network takes a prior mask."""
        return self.model.stateful

    @property
    def path(self) -> str:
        """Where the file lies."""
        return self.model.path

    @property
    def runtime(self) -> str:
        """The name of the library that executes it."""
        return self.model.runtime
