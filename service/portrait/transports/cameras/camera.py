"""Camera: the life of one declared camera. It connects while it is wanted, and again after a pause when it is lost."""

import asyncio
import logging
import random
import time
from asyncio import timeout
from contextlib import closing, suppress
from typing import Any

from portrait.admission.cost_model import NOMINAL_PIXELS
from portrait.core.compositors import Options
from portrait.errors import BadPicture, Draining, NotPublished, PortraitError, StreamTaken
from portrait.image.frame import Frame
from portrait.logs import log_event
from portrait.sessions.broadcasts import Broadcast, Broadcasts
from portrait.sessions.presence_feed import presence_document
from portrait.sessions.registry import Sessions
from portrait.sessions.session import Session
from portrait.transports.cameras.declared import Declared
from portrait.transports.cameras.outputs import open_output
from portrait.transports.cameras.packets import CameraFailed, MediaClock
from portrait.transports.cameras.sources import FfmpegSource, Found, OpenSource, Source
from portrait.transports.cameras.whep_source import WhepSource
from portrait.transports.files.reader import TIMEOUT

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a camera that failed is tried again; doubled each time, until it has been live for STEADY_SECONDS."""

STEADY_SECONDS = 10.0
"""Little, so that a camera that is cut again and again is shown most of the time; more than UNDECODABLE_SECONDS."""

LINGER_SECONDS = 10.0
"""How long a camera stays connected after its last viewer has left: one that reloads its page finds it live."""

LISTENERS_SECONDS = 1.0
"""How often it is looked whether presence in the camera is listened to."""

PRESENCE_SECONDS = 0.25
"""How often a picture is segmented for those listeners alone."""

CLAIM_SECONDS = 2.0
"""How often a worker tries to take over a camera that another one has."""

UNDECODABLE_SECONDS = 8.0
"""A camera of which no picture can be decoded for this long is connected anew."""

ANSWER_SECONDS = TIMEOUT[0] + 10.0
"""How long one that asks for a camera waits: FFmpeg's timeout, and its search for the streams."""

Outputs = dict[str, Frame]


class Camera:
    """One camera in this worker. `run` is its whole life; `wake` has it published."""

    def __init__(
        self, declared: Declared, options: Options, sessions: Sessions, broadcasts: Broadcasts, max_pixels: int
    ) -> None:
        self.declared, self._options, self._max_pixels = declared, options, max_pixels
        self._sessions, self._broadcasts = sessions, broadcasts
        self._asked = asyncio.Event()
        if declared.always:
            self._asked.set()
        self._listened = False
        """Whether presence in it is listened to."""
        self._published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outputs = [open_output(declared.name, target, sessions) for target in declared.outputs]
        self._times = MediaClock()
        self._found: Found | None = None
        self._session: Session[Any, Outputs] | None = None
        self._state, self._words, self._changed = "idle", "connects when it is watched", time.time()
        self._failures, self._failed_until = 0, 0.0
        self._live_since: float | None = None
        """When this connection became live, on the monotonic clock; None: it has not."""
        self._told = ""
        """The failure that was logged last."""
        sessions.metrics.camera_declared(declared.name)
        broadcasts.declare(declared.name, self.wake)

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.declared.name

    def describe(self) -> dict[str, Any]:
        """The camera as the API shows it; without credentials."""
        found, session = self._found, self._session
        load = None if session is None else session.load
        rate = load.result_rate(time.monotonic()) if load else 0.0
        presence = session.presence if session is not None and rate else None  # not what was so long ago
        return {
            "name": self.name,
            "address": self.declared.address.shown,
            "always": self.declared.always,
            "state": self._state,
            "words": self._words,
            "since": round(self._changed, 3),
            "codec": found.codec if found else None,
            "width": (load and load.width) or (found.width if found else 0),
            "height": (load and load.height) or (found.height if found else 0),
            "frames_per_second": round(rate, 1),
            "latency_seconds": round(load.latency, 4) if load else 0.0,
            "presence": None if presence is None else presence_document(presence),
            "failures": self._failures,
            "outputs": [output.words for output in self._outputs],
        }

    async def wake(self) -> None:
        """Have the camera published and live. Viewers that it has already stay while it fails; new ones are told why.

        Raises:
            NotPublished: it cannot be reached or read, or there is no capacity for it; says why, and when it is tried
                again.
            Draining: the service stops.
        """
        if self._sessions.draining:
            raise Draining("the service stops; connect elsewhere or later", FIRST_PAUSE)
        if self._state == "live":
            return
        if (left := self._failed_until - time.monotonic()) > 0:
            raise NotPublished(f"camera {self.name!r}: {self._told}", left)
        if self._published.done():
            self._published = asyncio.get_running_loop().create_future()
        self._asked.set()
        try:
            async with timeout(ANSWER_SECONDS):
                await asyncio.shield(self._published)
        except TimeoutError:
            raise NotPublished(f"camera {self.name!r} has not answered yet", FIRST_PAUSE) from None

    async def run(self) -> None:
        """Publish the camera whenever it is wanted, until cancelled or the service drains."""
        following = asyncio.create_task(self._follow_listeners(), name="camera-listeners")
        try:
            await self._run()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow_listeners(self) -> None:
        """Have the camera connected while presence in it is listened to."""
        while True:
            self._listened = self._sessions.feed.wanted(self.name)
            if self._listened and time.monotonic() >= self._failed_until:
                self._asked.set()
            await asyncio.sleep(LISTENERS_SECONDS)

    async def _run(self) -> None:
        while not self._sessions.draining:
            await self._asked.wait()
            try:
                with self._broadcasts.publish(self.name, declared=True) as broadcast:
                    await self._publish(broadcast)
            except StreamTaken:
                self._settle(NotPublished(f"camera {self.name!r} is being opened by another worker", FIRST_PAUSE))
                self._set("idle", "another worker has it")
                await asyncio.sleep(CLAIM_SECONDS)
            except Exception as error:
                # No task awaits this one: the camera would be gone for good.
                logger.exception("camera %s: it has failed unexpectedly", self.name)
                self._set("failed", f"it has failed unexpectedly: {type(error).__name__}")
                self._settle(NotPublished(f"camera {self.name!r}: {self._words}", LONGEST_PAUSE))
                await asyncio.sleep(LONGEST_PAUSE)
            if not self.declared.always:
                self._asked.clear()

    async def _publish(self, broadcast: Broadcast) -> None:
        """Keep the camera connected while it is wanted. Its viewers stay while it is lost."""
        while not self._sessions.draining:
            self._set("connecting", "waits for the camera to answer")
            self._live_since = None
            try:
                await self._show(broadcast)
                if not self._is_wanted(broadcast):
                    self._set("idle", "connects when it is watched")
                    return
                continue  # a viewer has come while it was being closed
            except PortraitError as error:
                pause = self._fail(str(error))
            if self._is_wanted(broadcast):
                await asyncio.sleep(pause)
            if not self._is_wanted(broadcast):
                return

    def _is_wanted(self, broadcast: Broadcast) -> bool:
        return self.declared.always or self._listened or broadcast.viewers > 0

    async def _show(self, broadcast: Broadcast) -> None:
        """Connect once, and show the camera until it is no longer wanted.

        Raises:
            CameraFailed: it cannot be reached or read, or is lost.
            Refused: there is no capacity for it.
        """
        open_source: OpenSource = WhepSource if self.declared.address.is_webrtc else FfmpegSource
        source = open_source(self.name, self.declared.address, self._times, broadcast)
        try:
            found = await source.found()
            if found.width * found.height > self._max_pixels:
                size, most = f"{found.width}x{found.height}", self._max_pixels
                raise CameraFailed(f"its pictures have {size}, more than PORTRAIT_MAX_FRAME_PIXELS={most} allows")
            with closing(source.open_codec(self._max_pixels)) as codec:
                pixels = found.width * found.height or NOMINAL_PIXELS
                async with self._sessions.open(
                    "camera", codec, self._options, self.declared.model, pixels=pixels, stream=self.name
                ) as session:
                    self._found, self._session, self._live_since = found, session, time.monotonic()
                    self._set("live", f"{found.codec} {found.width}x{found.height}" if found.width else found.codec)
                    self._settle(None)
                    await self._until_unwanted(session, source, broadcast)
        finally:
            self._found = self._session = None
            await source.close()

    async def _until_unwanted(self, session: Session[Any, Outputs], source: Source, broadcast: Broadcast) -> None:
        """Work until one of the things happens that end a connection."""
        work = asyncio.create_task(self._work(session, source, broadcast), name="camera-work")
        ended = asyncio.create_task(session.wait_ended(), name="camera-ended")
        leaving = asyncio.create_task(session.wait_leaving(), name="camera-leaving")
        unwatched = asyncio.create_task(self._until_unwatched(broadcast), name="camera-unwatched")
        tasks: list[asyncio.Task[Any]] = [work, ended, leaving, unwatched]
        outputs = [asyncio.create_task(output.run(broadcast), name="camera-output") for output in self._outputs]
        try:
            await asyncio.wait([*tasks, *outputs, source.lost], return_when=asyncio.FIRST_COMPLETED)
            for each in (work, source.lost, *outputs):
                if each.done():
                    each.result()  # none of them returns: this raises
            if ended.done():
                raise CameraFailed(f"its session was ended: {ended.result()}")
        finally:
            for task in (*tasks, *outputs):
                task.cancel()
            await asyncio.gather(*tasks, *outputs, return_exceptions=True)

    async def _until_unwatched(self, broadcast: Broadcast) -> None:
        """Wait until the last viewer has been gone for LINGER_SECONDS; for ever, if it is always connected."""
        seen = time.monotonic()
        while self.declared.always or time.monotonic() - seen < LINGER_SECONDS:
            await asyncio.sleep(1.0)
            if self._is_wanted(broadcast):
                seen = time.monotonic()

    async def _until_due(self, broadcast: Broadcast) -> None:
        """Wait for a viewer; where presence is listened to, for the next picture of that."""
        while not broadcast.watched.is_set():
            with suppress(TimeoutError):
                async with timeout(PRESENCE_SECONDS if self._listened else LISTENERS_SECONDS):
                    await broadcast.watched.wait()
            if self._listened:
                return

    async def _work(self, session: Session[Any, Outputs], source: Source, broadcast: Broadcast) -> None:
        """Take every newest picture through the session to the viewers.

        Without viewers nothing is decoded, but for presence, where that is listened to.
        """
        failing_since: float | None = None
        while True:
            await self._until_due(broadcast)
            await session.pace()
            taken = await source.take()
            if taken.lost:
                session.drop(taken.lost, "backlog_cleared")
            if taken.replaced:
                session.drop(taken.replaced)
            try:
                outputs = (await session.process(taken.picture, taken.arrived)).wire
            except BadPicture as error:  # counted by the session
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                if now - failing_since > UNDECODABLE_SECONDS:
                    raise CameraFailed(f"no picture could be decoded for {UNDECODABLE_SECONDS:g} s: {error}") from None
                continue
            except PortraitError:  # the session has been ended with the reason
                raise
            except Exception as error:
                raise CameraFailed(f"a frame could not be composed: {type(error).__name__}") from error
            failing_since = None
            broadcast.show(outputs, session.presence)

    def _fail(self, words: str) -> float:
        """Note a failure; returns the seconds until the next try."""
        lived = 0.0 if self._live_since is None else time.monotonic() - self._live_since
        self._failures = 1 if lived > STEADY_SECONDS else self._failures + 1
        pause: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 10)) * random.uniform(0.8, 1.2)
        self._failed_until = time.monotonic() + pause
        self._sessions.metrics.camera_failed(self.name)
        level = logging.WARNING if self._told != words else logging.DEBUG  # once for each reason
        self._told = words
        log_event(logger, level, "camera failed", camera=self.name, reason=words, retry_seconds=round(pause, 1))
        self._set("failed", words)
        self._settle(NotPublished(f"camera {self.name!r}: {words}", pause))
        return pause

    def _set(self, state: str, words: str) -> None:
        if state == "live":
            log_event(logger, logging.INFO, "camera live", camera=self.name, video=words)
            self._told = ""
        self._state, self._words, self._changed = state, words, time.time()
        self._sessions.metrics.camera_live(self.name, state == "live")

    def _settle(self, failure: NotPublished | None) -> None:
        """Answer those that wait for the camera."""
        if self._published.done():
            return
        if failure is None:
            self._published.set_result(None)
        else:
            self._published.set_exception(failure)
            self._published.exception()  # nobody may wait
