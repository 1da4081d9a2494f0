"""Backlog: a camera's pictures between the network and the session that decodes them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from portrait.sessions.newest_slot import Closed
from portrait.transports.webrtc.keyframes import is_keyframe

MAX_SECONDS = 0.5
MAX_PICTURES = 60
MAX_BYTES = 4 * 2**20
"""How old, how many and how large undecoded pictures may become; past any of these the backlog is cleared."""

KEYFRAME_WAIT_SECONDS = 1.0
"""How long pictures are skipped after that for want of a keyframe. A sender that does not answer requests is shown with
faults rather than not at all."""


class Decoding:
    """How decoding goes, written by the thread that decodes and read on the event loop."""

    def __init__(self, want_keyframe: Callable[[], None]) -> None:
        self._want_keyframe = want_keyframe
        self.failing_since: float | None = None
        """When the first picture failed that no decoded one has followed; monotonic clock."""
        self.failed_at = 0.0
        """When the last picture failed."""
        self.error = ""
        """Why it failed."""

    def succeeded(self) -> None:
        """Note a picture that was decoded."""
        self.failing_since = None

    def failed(self, error: str) -> None:
        """Note a picture that could not be decoded, and have a keyframe asked for."""
        self.error, self.failed_at = error, time.monotonic()
        if self.failing_since is None:
            self.failing_since = self.failed_at
        self._want_keyframe()


@dataclass(frozen=True, slots=True)
class CodedPictures:
    """What has come from a camera since the last time: at least one picture, the oldest first.

    Each builds on those before it, so that all must be decoded where only the newest is wanted.
    """

    pictures: Sequence[tuple[RTCRtpCodecParameters, JitterFrame]]
    arrived: float
    """When the newest arrived, on the monotonic clock."""
    decoding: Decoding


class Backlog:
    """Undecoded pictures and their arrival times, bounded; used on the event loop.

    Replaces a receiver's queue to its decoder's thread. When decoding falls behind it is cleared, since a picture more
    than MAX_SECONDS old is of no use to a live stream and every later one would be older; then a keyframe is asked for,
    and pictures that build on lost ones are skipped until it comes.
    """

    def __init__(self, want_keyframe: Callable[[], None], ended: Callable[[], None]) -> None:
        self.decoding = Decoding(want_keyframe)
        self.last_arrival = time.monotonic()
        """When the newest picture arrived, taken or not; at first, when waiting began."""
        self._want_keyframe, self._ended = want_keyframe, ended
        self._pictures: list[tuple[RTCRtpCodecParameters, JitterFrame]] = []
        self._arrivals: list[float] = []
        self._bytes = self._lost = 0
        self._skips_until = 0.0
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, picture: tuple[RTCRtpCodecParameters, JitterFrame] | None) -> None:
        """Take a picture, or note with None that no more will come; aiortc calls this."""
        if picture is None:
            self._ended()
            return
        if self._closed:
            return
        now = self.last_arrival = time.monotonic()
        data = picture[1].data
        if self._pictures and (
            now - self._arrivals[0] > MAX_SECONDS
            or len(self._pictures) >= MAX_PICTURES
            or self._bytes + len(data) > MAX_BYTES
        ):
            self._lost += len(self._pictures)
            self._clear()
            self._skips_until = now + KEYFRAME_WAIT_SECONDS
        if now < self._skips_until:
            if not is_keyframe(data):
                self._lost += 1
                self._want_keyframe()
                return
            self._skips_until = 0.0
        self._pictures.append(picture)
        self._arrivals.append(now)
        self._bytes += len(data)
        self._ready.set()

    async def take(self) -> CodedPictures:
        """Wait for a picture and take all there are. Cancelling is safe: nothing is lost.

        Raises:
            Closed: after `close`.
        """
        while not self._pictures:
            if self._closed:
                raise Closed
            self._ready.clear()
            await self._ready.wait()
        taken = CodedPictures(self._pictures, self._arrivals[-1], self.decoding)
        self._clear()
        return taken

    def take_lost(self) -> int:
        """How many pictures were cleared or skipped since the last call."""
        lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Drop everything and take no more; a waiting `take` raises. Idempotent."""
        self._closed = True
        self._clear()
        self._ready.set()

    def _clear(self) -> None:
        self._pictures, self._arrivals, self._bytes = [], [], 0
