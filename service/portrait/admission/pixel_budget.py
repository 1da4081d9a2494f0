"""PixelBudget: how many pixels of stills and backgrounds a worker has in memory at once."""

import asyncio
from asyncio import timeout
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from portrait.errors import TooManyPixels
from portrait.image.backgrounds import MAX_PIXELS as MAX_BACKGROUND_PIXELS
from portrait.image.backgrounds import Backgrounds
from portrait.image.compressed import read_size
from portrait.image.frame import Frame, check_size

BYTES_PER_PIXEL = 12
"""Memory of a still at its peak, decoded, composed and encoded: below 300 MB for 25 megapixels, whatever comes in and
goes out."""

WEBP_PIXELS = 7_000_000
"""Pixels of a result in WebP, at most: its encoder takes up to 39 bytes for each, 270 MB, and up to 2 s a megapixel."""

WEBP_CHARGE = 3
"""How many pixels each pixel of a still counts whose result is WebP."""

RESULT_COPIES = 2
"""Copies of a result while it is sent: the message, and what the transport buffers."""

WAIT_SECONDS = 10.0
"""How long a picture waits for its pixels: several of the largest stills."""

RETRY_AFTER = 5.0
"""Seconds a refused client is told to wait: the largest still takes two on one core."""

HEADER_THREADS = 2


class Share:
    """Pixels taken from a budget. A context manager that gives them back at its end."""

    def __init__(self, budget: "PixelBudget", pixels: int) -> None:
        self._budget, self.pixels = budget, pixels

    def __enter__(self) -> "Share":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def split(self, pixels: int) -> "Share":
        """Move `pixels` of these, or as many as there are, to a share that is released separately."""
        moved = Share(self._budget, min(pixels, self.pixels))
        self.pixels -= moved.pixels
        return moved

    def release(self) -> None:
        """Give the pixels back. Idempotent."""
        pixels, self.pixels = self.pixels, 0
        self._budget.give_back(pixels)


class PixelBudget:
    """Bounds the memory of pictures that arrive one by one: stills and the backgrounds that clients send.

    A file of 1 KB can hold 25 million pixels, so neither the bytes of a request nor the number of sessions bounds the
    memory it takes. Pixels are taken once the header has been read and before anything is decoded, and given back when
    the result has been sent. Pictures are served in the order in which they come, so that small ones never keep a
    large one waiting for ever. Used on one event loop; an async context manager, which ends its threads.
    """

    def __init__(self, pixels: int, wait_seconds: float = WAIT_SECONDS) -> None:
        """`pixels` is the bound; a larger picture has the budget to itself."""
        self._bound, self._wait_seconds = pixels, wait_seconds
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        # Not the event loop's own executor, which files and names wait for.
        self._headers = ThreadPoolExecutor(HEADER_THREADS, thread_name_prefix="picture-header")

    async def __aenter__(self) -> "PixelBudget":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._headers.shutdown(wait=False, cancel_futures=True)

    async def take_picture(
        self,
        data: bytes,
        max_pixels: int,
        field: str,
        *,
        charge: Callable[[int], int] = lambda pixels: pixels,
        ahead: bool = False,
    ) -> Share:
        """The share of a JPEG, PNG or WebP file, by the size in its header; `ahead` as in `take`.

        `charge` returns how many pixels a picture of so many counts; it may refuse the picture.

        Raises:
            BadPicture: not a picture, or one of more than `max_pixels`; names `field`.
            TooManyPixels: its pixels do not become free in time.
            Exception: whatever `charge` raises.
        """
        loop = asyncio.get_running_loop()
        width, height = await loop.run_in_executor(self._headers, read_size, data, max_pixels, field)
        check_size(width, height, max_pixels, field)
        return await self.take(charge(width * height), ahead=ahead)

    async def take(self, pixels: int, *, ahead: bool = False) -> Share:
        """The share of a picture of `pixels`; with `ahead` it comes before all pictures that wait.

        Raises:
            TooManyPixels: its pixels do not become free in time.
        """
        pixels = min(pixels, self._bound)
        if (self._waiting and not ahead) or self._taken + pixels > self._bound:
            await self._wait(pixels, ahead)
        else:
            self._taken += pixels
        return Share(self, pixels)

    def give_back(self, pixels: int) -> None:
        """Let pictures that wait have the pixels of a share."""
        self._taken -= pixels
        while self._waiting and self._taken + self._waiting[0][0] <= self._bound:
            wanted, granted = self._waiting.popleft()
            if not granted.done():  # else its caller has been cancelled in this very step of the loop
                self._taken += wanted
                granted.set_result(None)

    async def _wait(self, pixels: int, ahead: bool) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (pixels, granted)
        if ahead:
            self._waiting.appendleft(waiting)
        else:
            self._waiting.append(waiting)
        try:
            async with timeout(self._wait_seconds):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self.give_back(pixels)  # granted in the step in which the wait ended
            else:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
                self.give_back(0)  # the next one may fit where this one did not
            if not isinstance(error, TimeoutError):
                raise
            raise TooManyPixels(
                f"got a picture of {pixels} pixels while {self._taken} of {self._bound} are in memory, and not enough "
                f"became free within {self._wait_seconds:g} s; try again later",
                RETRY_AFTER,
            ) from None


def result_pixels(length: int) -> int:
    """Pixels that stand for the memory of a result of `length` bytes while it is sent."""
    return -(-RESULT_COPIES * length // BYTES_PER_PIXEL)


async def decode_background(
    data: bytes, backgrounds: Backgrounds, budget: PixelBudget, *, ahead: bool = False
) -> Frame:
    """The background that a client sends, a JPEG, PNG or WebP file; its pixels are in the budget while it is decoded.

    Those of open streams go `ahead` of stills: their frames wait meanwhile.

    Raises:
        BadPicture: not a picture, or too large a one.
        TooManyPixels: its pixels do not become free in time.
    """
    with await budget.take_picture(data, MAX_BACKGROUND_PIXELS, "background", ahead=ahead):
        return await backgrounds.decode(data)
