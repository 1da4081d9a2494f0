"""Sound: a publisher's reaches its viewers as it came, in step with the picture; a loopback sends none."""

import asyncio
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack, clock

from portrait.server.app import RunningService
from portrait.sessions.sound import FRACTION, Sound
from portrait.transports.webrtc.aiortc_patches.sound import note_reports
from tests import whip_client
from tests.fakes import FakeModel, full_mask
from tests.rtc import Viewer, fake_service, viewer
from tests.timing import at_most

pytestmark = pytest.mark.usefixtures("no_sockets_left")

RATE = 48_000
BLOCK = RATE // 50
PERIOD, LENGTH = 1.0, 0.2
"""Seconds from one flash to the next, and how long each lasts."""


def is_on(seconds: float) -> bool:
    return seconds % PERIOD < LENGTH


class Flashes(MediaStreamTrack):
    """A picture that is white while the tone is to be heard, and dark otherwise."""

    kind = "video"

    def __init__(self, began: float) -> None:
        super().__init__()
        self._began = began

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / 30)
        seconds = time.monotonic() - self._began
        picture = np.full((240, 320, 3), 220 if is_on(seconds) else 30, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(90_000 * seconds), Fraction(1, 90_000)
        return frame


class Tones(MediaStreamTrack):
    """A tone of 440 Hz while the picture is white."""

    kind = "audio"

    def __init__(self, began: float) -> None:
        super().__init__()
        self._began, self._samples = began, 0

    async def recv(self) -> av.AudioFrame:
        now = time.monotonic() - self._began
        if now - self._samples / RATE > 0.5:  # it was asked for late: what has gone by is not sent in a burst
            self._samples = round(now * RATE)
        await asyncio.sleep(self._samples / RATE - now)
        at = (self._samples + np.arange(BLOCK)) / RATE
        tone = np.where(at % PERIOD < LENGTH, 12_000 * np.sin(2 * np.pi * 440 * at), 0).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._samples, Fraction(1, RATE)
        self._samples += BLOCK
        return frame


class Listening:
    """A viewer that takes picture and sound, and notes when each begins to be on, by the reports' clock."""

    def __init__(self, one: Viewer) -> None:
        self.viewer, self.reports = one, Sound()
        self.tracks: dict[str, MediaStreamTrack] = {}
        self.onsets: dict[str, list[int]] = {"audio": [], "video": []}
        """RTP timestamps."""
        self.energy = 0.0
        one.pc.on("track", lambda track: self.tracks.update({track.kind: track}))

    async def connect(self, path: str) -> None:
        await self.viewer.connect(path)
        for transceiver in self.viewer.pc.getTransceivers():
            note_reports(transceiver, self.reports)

    async def listen(self) -> None:
        await asyncio.gather(self._note("audio"), self._note("video"))

    async def _note(self, kind: str) -> None:
        was_on = True
        while True:
            frame = await self.tracks[kind].recv()
            assert isinstance(frame, av.AudioFrame | av.VideoFrame)
            if isinstance(frame, av.AudioFrame):
                level = float(np.abs(frame.to_ndarray().astype(float)).mean())
                self.energy = max(self.energy, level)
                on = level > 1000
            else:
                on = float(frame.to_ndarray(format="gray").mean()) > 120
            if on and not was_on and frame.pts is not None:
                self.onsets[kind].append(frame.pts)
            was_on = on

    def offsets(self) -> list[float]:
        """Seconds by which each tone is later than its flash; there are flashes before the first tone is heard."""
        clocks = [self.reports.clock(kind) for kind in ("audio", "video")]
        if None in clocks:
            return []
        tones, flashes = (
            [clock.ntp_of(onset) / FRACTION for onset in self.onsets[kind]]
            for clock, kind in zip(clocks, ("audio", "video"), strict=True)
            if clock is not None
        )
        return [min((tone - flash for flash in flashes), key=abs) for tone in tones] if flashes else []


def published_at(began: float) -> float:
    """The NTP time of a moment of the monotonic clock, in seconds."""
    return clock.current_ntp_time() / FRACTION - (time.monotonic() - began)


@asynccontextmanager
async def listener(url: str) -> AsyncIterator[Listening]:
    async with viewer(url) as one:
        one.pc.addTransceiver("video", direction="recvonly")
        one.pc.addTransceiver("audio", direction="recvonly")
        yield Listening(one)


@pytest.mark.timing
async def test_sound_reaches_a_viewer_in_step_with_the_picture() -> None:
    began = time.monotonic()
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url) as one, listener(url) as two:
        for track in (Flashes(began), Tones(began)):
            one.pc.addTransceiver(track, direction="sendonly")
        await one.connect("/whip/desk")
        await two.connect("/whep/desk")
        listening = asyncio.create_task(two.listen())
        try:
            async with timeout(60):
                while len(two.offsets()) < 3 and not listening.done():
                    await asyncio.sleep(0.1)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        offset = float(np.median(np.abs(two.offsets())))
        at_most("a tone is off its flash by, seconds", offset, 0.1)
        # On a busy machine pictures are dropped, and with them the beginnings of flashes. The clocks are the same.
        for kind in ("audio", "video"):
            reported = two.reports.clock(kind)
            assert reported is not None
            assert abs(reported.ntp_of(0) / FRACTION - published_at(began)) < 2.0


@pytest.mark.skipif(whip_client.missing() is not None, reason=str(whip_client.missing()))
async def test_the_sound_of_gstreamer_is_heard(service: RunningService, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{service.http_port}"
    async with (
        whip_client.publishing(tmp_path, f"{url}/whip/desk", "none", "--audio", whip_client.TONE),
        listener(url) as two,
    ):
        offer = await two.viewer.offer()
        async with timeout(60):
            while (answer := await two.viewer.post(offer, "/whep/desk")).status == 409:
                await asyncio.sleep(0.2)
            await two.viewer.take(await answer.text())
            listening = asyncio.create_task(two.listen())
            while two.energy < 1000 and not listening.done():
                await asyncio.sleep(0.1)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert two.energy > 1000


async def test_a_viewer_of_a_stream_without_sound_is_told_so_and_a_loopback_echoes_none() -> None:
    began = time.monotonic()
    async with (
        fake_service(FakeModel(full_mask)) as (url, _),
        viewer(url) as one,
        viewer(url) as silent,
        listener(url) as two,
    ):
        one.pc.addTransceiver(Flashes(began), direction="sendrecv")
        one.pc.addTransceiver(Tones(began), direction="sendrecv")
        await one.connect("/webrtc")
        assert "a=inactive" in one.pc.remoteDescription.sdp.partition("m=audio")[2]
        silent.pc.addTransceiver(Flashes(began), direction="sendonly")
        await silent.connect("/whip/desk")
        await two.connect("/whep/desk")
        assert "a=inactive" in two.viewer.pc.remoteDescription.sdp.partition("m=audio")[2]
