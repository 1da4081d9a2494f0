"""A camera's packets: read by a thread of its own, given times that never jump, and kept until they are decoded."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import av

from portrait.errors import PortraitError
from portrait.sessions.sound import FRACTION, SenderClock, Sound, SoundFormat, SoundPacket
from portrait.transports.cameras.addresses import Address, say
from portrait.transports.files.reader import open_place, video_of

Packet: TypeAlias = "av.Packet[Any]"

TIME_BASE = Fraction(1, 90_000)
"""RTP's clock of video (RFC 3551 section 5): the times that viewers get."""

BACKWARD, FORWARD = Fraction(1, 2), Fraction(10)
"""Seconds by which a packet may be before or after the one it follows; more is a clock that was set anew."""

STEP = Fraction(1, 1000)
"""Seconds between two pictures without times of their own, at least."""

FILES = ("hls", "mov", "matroska")
"""Containers that are had faster than they play: their packets are held back until their time."""

MOST_SECONDS, MOST_PACKETS, MOST_BYTES = 1.0, 600, 8 * 2**20
"""How far decoding may fall behind, and how much may wait; past any of these all is dropped up to the next keyframe."""

KEYFRAME_SECONDS = 12.0
"""A camera that sends no keyframe for so long refreshes its picture by parts: it is shown without waiting for one."""

SOUNDS = {"opus": "audio/opus", "pcm_mulaw": "audio/pcmu", "pcm_alaw": "audio/pcma"}
"""Codecs of sound that WebRTC has too, by FFmpeg's names: viewers get these as they came, and no others."""

MOST_SOUND_BYTES = 16_384
"""Of a packet of sound."""

NTP_EPOCH = 2_208_988_800
"""Seconds from 1900, where NTP begins, to 1970."""

STOP_SECONDS = 0.5
"""How long closing waits for the thread. One inside FFmpeg ends by itself, within TIMEOUT, and touches nothing."""


class CameraFailed(PortraitError):
    """A camera cannot be reached, read or decoded, or has been lost; says why in words without an address."""

    reason = "CAMERA_FAILED"


class MediaClock:
    """Moves a camera's times to one line that begins at 0 and never jumps, over all its connections.

    The intervals are the camera's own. Where it tells no time, or sets its clock anew, the time of arrival counts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._last = Fraction(0)
        self._move: Fraction | None = None

    def reconnected(self) -> None:
        """Expect times that have nothing to do with those before."""
        self._move = None

    def place(self, packet: Packet) -> Fraction:
        """Set the times of a packet, in ticks of TIME_BASE; returns its decoding time in seconds."""
        ticks, base = packet.pts if packet.dts is None else packet.dts, packet.time_base
        if ticks is None or not base:
            at, later = self.moved(None), 0
        else:
            last, at = self._last, self.moved(ticks * base)
            if packet.dts is not None and last - BACKWARD <= at <= last:  # some servers tell one time twice
                at = self._last = last + STEP
            later = 0 if packet.pts is None else round((packet.pts - ticks) * base / TIME_BASE)
        packet.time_base = TIME_BASE
        packet.dts = round(at / TIME_BASE)
        packet.pts = packet.dts + later
        return at

    def moved(self, seconds: Fraction | None) -> Fraction:
        """A time of the camera, None if it tells none, in seconds of the line."""
        if seconds is None:
            at = self._now()
        else:
            at = seconds + (self._move if self._move is not None else self._anchored(seconds))
            if not self._last - BACKWARD <= at <= self._last + FORWARD:
                at = seconds + self._anchored(seconds)
        self._last = max(self._last, at)
        return at

    def beside(self, seconds: Fraction) -> Fraction | None:
        """The time of something beside the pictures, such as sound, on the same line; None before the first picture."""
        return None if self._move is None else seconds + self._move

    def _anchored(self, at: Fraction) -> Fraction:
        """How far the camera's times are moved from now on, so that `at` is now."""
        self._move = self._now() - at
        return self._move

    def _now(self) -> Fraction:
        """The time of arrival, which is later than that of anything before, also in a burst."""
        return max(self._last + STEP, Fraction(self._clock() - self._began).limit_denominator(90_000))


@dataclass(frozen=True, slots=True)
class Packets:
    """What has come from a camera since the last time: at least one packet, the oldest first."""

    packets: Sequence[Packet]
    arrived: float
    """When the newest arrived, on the monotonic clock."""


class Backlog:
    """Undecoded packets, bounded; used on the event loop. While nobody watches it keeps those since the last keyframe.

    A camera cannot be asked for a keyframe. So what is kept makes a picture at once for the first viewer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._packets: list[Packet] = []
        self._bytes = self._lost = 0
        self._arrived = self._since = clock()
        """When the newest packet arrived; since when the oldest could have been taken."""
        self._waits_since: float | None = self._since
        """Since when packets are skipped for want of a keyframe."""
        self._ready = asyncio.Event()

    def put(self, packet: Packet, *, watched: bool) -> None:
        """Take a packet."""
        now = self._clock()
        key = packet.is_keyframe
        if key and not watched:
            self._clear()
        if self._waits_since is not None:
            if not key and now - self._waits_since < KEYFRAME_SECONDS:
                self._lost += 1
                return
            self._waits_since = None
        behind = watched and bool(self._packets) and now - self._since > MOST_SECONDS
        if behind or len(self._packets) >= MOST_PACKETS or self._bytes + packet.size > MOST_BYTES:
            self._lost += len(self._packets) + (not key)
            self._clear()
            if not key:
                self._waits_since = now
                return
        if not self._packets or not watched:
            self._since = now
        self._packets.append(packet)
        self._arrived = now
        self._bytes += packet.size
        self._ready.set()

    async def take(self) -> Packets:
        """Wait for a packet and take all there are. Cancelling is safe: nothing is lost."""
        while not self._packets:
            self._ready.clear()
            await self._ready.wait()
        taken = Packets(self._packets, self._arrived)
        self._clear()
        return taken

    def take_lost(self) -> int:
        """How many packets were dropped undecoded since the last call."""
        lost, self._lost = self._lost, 0
        return lost

    def _clear(self) -> None:
        self._packets, self._bytes = [], 0


@dataclass(frozen=True, slots=True)
class Video:
    """The video of a camera that has answered."""

    decoder: Any
    """Its codec's context, which from now on belongs to the receiver of this."""
    codec: str
    width: int
    height: int


class PacketReader:
    """A connection to a camera, read by a thread: FFmpeg's calls block. Construction begins it; `close` ends it.

    `opened` gives its video, and `lost` says why it ended; both raise CameraFailed. `deliver` gets every packet of the
    video, and `sound` those of sound in a codec that viewers take, on the event loop.
    """

    def __init__(
        self, name: str, address: Address, times: MediaClock, deliver: Callable[[Packet], None], sound: Sound
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Video] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._address, self._times, self._deliver, self._sound = address, times, deliver, sound
        self._stopped = threading.Event()
        self._ended = asyncio.Event()
        # A daemon: a camera that is silent must not keep the process from ending.
        threading.Thread(target=self._run, name=f"camera-{name}", daemon=True).start()

    async def close(self) -> None:
        """Let the thread end, and wait a moment for it. It delivers nothing more. Idempotent."""
        self._stopped.set()
        for future in (self.opened, self.lost):
            future.cancel()
            if not future.cancelled():
                future.exception()  # it has been told, or is of no interest any more
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended.wait()

    def _run(self) -> None:
        try:
            self._read()
            failure = CameraFailed("the camera ended the stream")
        except CameraFailed as failed:
            failure = failed
        except (av.error.FFmpegError, OSError, ValueError) as error:
            failure = CameraFailed(say(error))
        except BaseException as error:
            failure = CameraFailed(f"it could not be read: {type(error).__name__}")
        failure.__traceback__ = None  # it holds the connection
        self._call(self._end, failure)

    def _read(self) -> None:
        with open_place(self._address.url, self._address.options) as container:
            video = video_of(container)
            if video is None:
                raise CameraFailed("there is no video in what the camera sends")
            context = video.codec_context
            if context is None:
                raise CameraFailed("the video has a codec that cannot be decoded")
            found = Video(context, context.name, context.width, context.height)
            self._call(self._open, found)
            self._times.reconnected()
            wait = self._pace() if container.format.name.split(",")[0] in FILES else None
            sound = next((each for each in container.streams.audio if each.codec_context is not None), None)
            if sound is not None:
                context = sound.codec_context
                layout = "mono" if context.layout.nb_channels == 1 else context.layout.name
                found_sound = SoundFormat(context.name, context.sample_rate, layout, context.extradata)
                self._call(self._begin_sound, found_sound)
            for packet in self._packets(container, [video] if sound is None else [video, sound]):
                if sound is not None and packet.stream.index == sound.index:
                    self._hear(packet, sound.rate)
                    continue
                at = self._times.place(packet)
                if wait is not None:
                    wait(float(at))
                self._call(self._take, packet)

    def _hear(self, packet: Packet, rate: int) -> None:
        """Pass on a packet of sound, at its time on the pictures' line."""
        ticks = packet.pts if packet.dts is None else packet.dts
        at = None if ticks is None else self._times.beside(ticks * packet.time_base)
        if at is not None and packet.size <= MOST_SOUND_BYTES:
            self._call(self._play, SoundPacket(bytes(packet), round(at * rate)))

    def _packets(self, container: Any, streams: list[Any]) -> Iterator[Packet]:
        for packet in container.demux(streams):
            if self._stopped.is_set():
                return
            if packet.size:  # the last one is empty
                yield packet

    def _pace(self) -> Callable[[float], None]:
        """Hold back a packet until its time."""
        began: list[float] = []

        def wait(seconds: float) -> None:
            if not began:
                began.append(time.monotonic() - seconds)
            self._stopped.wait(max(0.0, began[0] + seconds - time.monotonic()))

        return wait

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing waits for it any more
            self._loop.call_soon_threadsafe(function, *arguments)

    # On the event loop.

    def _open(self, found: Video) -> None:
        if not self.opened.done():
            self.opened.set_result(found)

    def _take(self, packet: Packet) -> None:
        if not self._stopped.is_set():
            self._deliver(packet)

    def _begin_sound(self, found: SoundFormat) -> None:
        if not self._stopped.is_set():
            ntp = int((time.time() + NTP_EPOCH) * FRACTION)
            self._sound.format, self._sound.codec = found, SOUNDS.get(found.codec, f"audio/x-{found.codec}")
            # Both are on one line of times, which begins at 0.
            self._sound.clocks = {"audio": SenderClock(ntp, 0, found.rate), "video": SenderClock(ntp, 0, 90_000)}

    def _play(self, packet: SoundPacket) -> None:
        if not self._stopped.is_set():
            self._sound.play(packet)

    def _end(self, failure: CameraFailed) -> None:
        self._ended.set()
        for future in (self.opened, self.lost):
            if not future.done():
                future.set_exception(failure)
