"""Broadcasts: streams by name, each with one publisher and any number of viewers up to the limit."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import cv2
import numpy as np

from portrait.core.pipeline import Result
from portrait.core.presence import Presence
from portrait.errors import NotPublished, StreamTaken, TooManyViewers
from portrait.image.convert import recolored
from portrait.image.frame import CAMERA, GREY, Frame, Mask, Plane, chroma_size
from portrait.sessions.newest_slot import NewestSlot
from portrait.sessions.sound import Sound
from portrait.workers.shared_state import SharedState

VIDEOS = ("composite", "mask")
"""What a viewer can be shown as a video: the composed picture, or the mask in a video's range of luma."""

OUTPUTS = (*VIDEOS, "probability")
"""And the mask as numbers: a frame whose luma is the probability, 0 to 255."""

RETRY_AFTER = 2.0
"""Seconds after which a viewer may ask again for a stream that is not published."""

Wake: TypeAlias = Callable[[], Awaitable[None]]
"""Has a declared stream published, and returns once it is live."""


class Broadcast:
    """What one publisher sends to its viewers, each of whom has a slot."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = asyncio.Event()
        self.watched = asyncio.Event()
        """Set while an output is wanted."""
        self.viewers = 0
        """How many there are, those that are still connecting and want nothing yet among them."""
        self.pixels = dict.fromkeys(OUTPUTS, 0)
        """Size of each output's last frame; 0 before the first."""
        self.sound = Sound()
        self.presence: Presence | None = None
        """Who is in the frame that was shown last; None before the first."""
        self._slots: dict[str, set[NewestSlot[Frame]]] = {output: set() for output in OUTPUTS}

    @property
    def wanted(self) -> frozenset[str]:
        """The outputs that have viewers."""
        return frozenset(output for output, slots in self._slots.items() if slots)

    def show(self, outputs: dict[str, Frame], presence: Presence | None = None) -> None:
        """Give every viewer the newest frame of its output, with who is in it."""
        self.presence = presence
        for output, frame in outputs.items():
            self.pixels[output] = frame.width * frame.height
            for slot in self._slots[output]:
                slot.put(frame)

    @contextmanager
    def watch(self, output: str) -> Iterator[NewestSlot[Frame]]:
        """A slot that holds the newest frame, for the length of the block."""
        slot: NewestSlot[Frame] = NewestSlot()
        self._slots[output].add(slot)
        self.watched.set()
        try:
            yield slot
        finally:
            self._slots[output].discard(slot)
            if not self.wanted:
                self.watched.clear()
            slot.close()


class Broadcasts:
    """The streams of this worker; their names and the number of viewers are the box's."""

    def __init__(self, max_viewers: int, shared: SharedState) -> None:
        self._max_viewers, self._viewers, self._shared = max_viewers, 0, shared
        self._broadcasts: dict[str, Broadcast] = {}
        self._declared: dict[str, Wake] = {}

    def publisher(self, name: str) -> int | None:
        """The index of the worker of this pod that publishes a stream, None when none does."""
        return self._shared.index if name in self._broadcasts else self._shared.stream_names.owner(name)

    def knows(self, name: str) -> bool:
        """Whether this pod publishes the stream, or can: it is declared here."""
        return name in self._declared or self.publisher(name) is not None

    def is_draining(self, name: str) -> bool:
        """Whether the worker that publishes the stream stops; False when none publishes it."""
        index = self.publisher(name)
        return index is not None and self._shared.rows[index].draining

    def declare(self, name: str, wake: Wake) -> None:
        """Keep a name for a stream that is published when it is asked for."""
        self._declared[name] = wake

    async def wake(self, name: str) -> None:
        """Have a declared stream published and live; other names need nothing.

        Raises:
            NotPublished: it cannot be now; says why.
        """
        if (wake := self._declared.get(name)) is not None:
            await wake()

    @contextmanager
    def publish(self, name: str, *, declared: bool = False) -> Iterator[Broadcast]:
        """A broadcast of that name for the length of the block; its viewers are told when it ends.

        Raises:
            StreamTaken: the name is published already, or kept for a declared stream and this is none.
        """
        if name in self._declared and not declared:
            raise StreamTaken(f"{name!r} is a camera of this service; publish under another name", RETRY_AFTER)
        if name in self._broadcasts or not self._shared.stream_names.claim(name):
            raise StreamTaken(f"{name!r} is published already", RETRY_AFTER)
        broadcast = self._broadcasts[name] = Broadcast(name)
        try:
            yield broadcast
        finally:
            del self._broadcasts[name]
            self._shared.stream_names.release(name)
            broadcast.ended.set()

    @contextmanager
    def view(self, name: str) -> Iterator[Broadcast]:
        """The broadcast of that name, with one more viewer for the length of the block.

        Raises:
            NotPublished: the name is not published now.
            TooManyViewers: the limit is reached.
        """
        if name not in self._broadcasts:
            raise NotPublished(f"{name!r} is not published now", RETRY_AFTER)
        with self._shared.locked():
            viewers = sum(row.viewers for row in self._shared.rows)
            if viewers >= self._max_viewers:
                raise TooManyViewers(f"{viewers} of {self._max_viewers} viewers are connected", RETRY_AFTER)
            self._viewers += 1
            self._shared.tell(viewers=self._viewers)
        broadcast = self._broadcasts[name]
        broadcast.viewers += 1
        try:
            yield broadcast
        finally:
            broadcast.viewers -= 1
            self._viewers -= 1
            self._shared.tell(viewers=self._viewers)


def make_outputs(result: Result, wanted: Collection[str]) -> dict[str, Frame]:
    """Make each of OUTPUTS that is wanted."""
    made = {}
    if "composite" in wanted:
        made["composite"] = recolored(result.compose(), CAMERA)
    if "mask" in wanted:
        made["mask"] = mask_frame(result.mask, result.frame)
    if "probability" in wanted:
        made["probability"] = _grey_frame(result.mask.values, result.frame)
    return made


def mask_frame(mask: Mask, frame: Frame) -> Frame:
    """The mask at the model's size as a grey frame: luma 16 for probability 0, 235 for 1.

    A receiver that converts it to RGB, as browsers do, reads the probability as 0 to 255.
    """
    return _grey_frame(np.asarray(cv2.convertScaleAbs(mask.values, alpha=219 / 255, beta=16), np.uint8), frame)


def _grey_frame(luma: Plane, frame: Frame) -> Frame:
    """A frame of this luma without colour, at the time of `frame`."""
    height, width = luma.shape
    chroma_width, chroma_height = chroma_size(width, height)
    grey = np.full((chroma_height, chroma_width), GREY, np.uint8)
    return Frame(luma, grey, grey, frame.timestamp, frame.arrived)
