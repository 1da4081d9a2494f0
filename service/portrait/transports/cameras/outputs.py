"""Outputs of a camera: its composed pictures recorded in segments, or pushed to another server."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.admission.capacity import StreamLoad
from portrait.errors import BadOption, PortraitError
from portrait.image.frame import Frame, Timestamp
from portrait.logs import log_event
from portrait.sessions.broadcasts import Broadcast
from portrait.sessions.newest_slot import Closed, NewestSlot
from portrait.sessions.registry import Sessions
from portrait.sessions.sound import SoundFormat, SoundPacket
from portrait.sessions.watched_thread import WatchedThread
from portrait.transports.cameras.addresses import Address
from portrait.transports.cameras.declared import Record
from portrait.transports.cameras.packets import CameraFailed
from portrait.transports.cameras.whip_client import leave, open_http, post_offer, say
from portrait.transports.files.run_job import hidden_part
from portrait.transports.files.writer import Writer
from portrait.transports.webrtc.aiortc_patches.sound import codec_of, report_in_step, send_sound
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, PictureEncoder, hand_over
from portrait.transports.webrtc.connection import Connection

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before an output that failed is opened again; doubled each time."""

HANG_SECONDS = 3600.0
"""Of the thread. Nothing on it runs the model, which alone can hang."""

WRITE_SECONDS = 30.0
"""How long opening a target, or writing a picture, may take before the target counts as lost."""

CLOSE_SECONDS = 3.0
"""How long the end of an output waits for what is left to be written; a server that takes nothing more is abandoned."""

RATE = Fraction(25)
"""What an encoder is told of a camera's rate. Pictures have their own times."""


class LiveOrigin:
    """A camera as the source of a Writer: square pixels, times of its own, and nothing beside the pictures."""

    live, rate, aspect, last, container = True, RATE, Fraction(1), None, None

    def duration(self, frame: Frame) -> int:
        """Not known: the next picture's time tells it."""
        return 0


class Output(ABC):
    """One output of a camera. It fails and is opened again beside the camera."""

    def __init__(self, camera: str, sessions: Sessions) -> None:
        self._camera, self._sessions = camera, sessions
        self.words = "waits for the camera"
        """How it goes, without an address."""

    async def run(self, broadcast: Broadcast) -> None:
        """Write the broadcast's composed pictures until cancelled; the newest wins where writing is slow."""
        failures = 0
        while True:
            try:
                await self._write(broadcast)
            except (PortraitError, av.error.FFmpegError, aiohttp.ClientError, OSError) as error:
                failures += 1
                self._fail(error)
            await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10)))

    @abstractmethod
    async def _write(self, broadcast: Broadcast) -> None:
        """Open the target and write until cancelled.

        Raises:
            PortraitError, FFmpegError, ClientError, OSError: it cannot be opened, or is lost.
        """

    def _fail(self, error: Exception) -> None:
        # A writer's message begins with the address, whose path may be a key.
        words = str(error).rpartition("cannot be written: ")[2]
        if isinstance(error, aiohttp.ClientError | TimeoutError):
            words = say(error)
        elif isinstance(error, OSError) and error.strerror:
            words = error.strerror
        if words != self.words:
            log_event(logger, logging.WARNING, "camera output failed", camera=self._camera, reason=words)
        self.words = words


class WrittenOutput(Output):
    """Segments on disk, or an address that FFmpeg writes to, by a thread of its own."""

    def __init__(self, camera: str, target: Record | Address, sessions: Sessions) -> None:
        super().__init__(camera, sessions)
        self._target = target

    async def _write(self, broadcast: Broadcast) -> None:
        thread = WatchedThread(f"camera-output-{self._camera}", HANG_SECONDS)
        writing = Writing(self._camera, self._target)
        try:
            with (
                self._sessions.admit_viewer(broadcast.pixels["composite"]) as load,
                broadcast.watch("composite") as slot,
                broadcast.sound.listen() as listener,
            ):
                while True:
                    frame = await slot.get()
                    async with asyncio.timeout(WRITE_SECONDS):
                        await thread.run(writing.put, frame, broadcast.sound.format, listener.take())
                    self.words = "recording" if isinstance(self._target, Record) else "sending"
                    load.add_result(time.monotonic(), frame.arrived, (frame.width, frame.height))
        finally:
            with suppress(TimeoutError, PortraitError, OSError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await asyncio.shield(thread.close(writing.finish))


class Writing:
    """What one thread writes: one segment after another, or to one address. A new one for each attempt.

    A thread that is stuck in a write keeps its own, and cannot harm that of the next attempt.
    """

    def __init__(self, camera: str, target: Record | Address) -> None:
        self._camera, self._target = camera, target
        self._writer: Writer | None = None
        self._place: tuple[Path, Path] | None = None
        """Where a segment is written, and what it is called once it is whole."""
        self._decoder: Any = None
        """Of the sound; None: there is none."""
        self._size, self._first = (0, 0), Timestamp(0, Fraction(1))

    def put(self, frame: Frame, sound: SoundFormat | None, packets: Sequence[SoundPacket]) -> None:
        """Write a picture and the sound that has come since the last one.

        Raises:
            BadOption, FFmpegError, OSError: the target cannot be written.
        """
        seconds = self._target.seconds if isinstance(self._target, Record) else float("inf")
        length = frame.seconds - float(self._first.ticks * self._first.time_base)
        if self._writer is not None and ((frame.width, frame.height) != self._size or length >= seconds):
            self.finish()
        if self._writer is None:
            self._open(frame, sound)
        assert self._writer is not None
        first = self._first.ticks * self._first.time_base
        ticks = frame.timestamp.ticks - round(first / frame.timestamp.time_base)
        self._writer.write(replace(frame, timestamp=Timestamp(ticks, frame.timestamp.time_base)))
        if self._decoder is not None:
            self._writer.write_sound(self._decoded(packets, first))

    def _decoded(self, packets: Sequence[SoundPacket], first: Fraction) -> list[av.AudioFrame]:
        """Sound at its times after the first picture's; what cannot be decoded is left out."""
        decoded: list[av.AudioFrame] = []
        for each in packets:
            packet: Any = av.Packet(each.payload)
            packet.time_base = Fraction(1, self._decoder.sample_rate)
            packet.pts = packet.dts = each.timestamp - round(first * self._decoder.sample_rate)
            if packet.pts >= 0:
                with suppress(av.error.FFmpegError):
                    decoded += self._decoder.decode(packet)
        return decoded

    def _open(self, frame: Frame, sound: SoundFormat | None) -> None:
        origin: Any = LiveOrigin()
        if isinstance(self._target, Record):
            self._target.folder.mkdir(parents=True, exist_ok=True)
            whole = _free_name(self._target.folder, f"{self._camera}-{time.strftime('%Y%m%d-%H%M%S')}", self._target)
            self._place = hidden_part(whole), whole
            self._writer = Writer(origin, str(self._place[0]), str(whole), paced=False)
        else:
            self._writer = Writer(origin, self._target.url, self._target.url, paced=False)
        self._decoder = None
        if sound is not None:
            self._decoder = _open_decoder(sound)
            self._writer.add_sound(sound.rate, is_mono=sound.layout == "mono")
        self._size, self._first = (frame.width, frame.height), frame.timestamp

    def finish(self) -> None:
        """Complete what is being written. Idempotent."""
        writer, self._writer = self._writer, None
        place, self._place = self._place, None
        if writer is None:
            return
        try:
            with suppress(BadOption):  # its server or its disk has gone: what could be written is
                writer.finish()
        finally:
            writer.close()
        if place is not None and writer.frames:
            place[0].rename(place[1])


class WhipOutput(Output):
    """Another server's WHIP endpoint: MediaMTX, a LiveKit ingress, a second service like this one."""

    def __init__(self, camera: str, address: Address, sessions: Sessions) -> None:
        super().__init__(camera, sessions)
        self._address = address

    async def _write(self, broadcast: Broadcast) -> None:
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def end(reason: str) -> None:
            if not ended.done():
                ended.set_result(reason)

        connection, encoder, resource = Connection(end), PictureEncoder(), None
        thread = WatchedThread(f"camera-output-{self._camera}", HANG_SECONDS)
        http = open_http()
        try:
            with (
                self._sessions.admit_viewer(broadcast.pixels["composite"]) as load,
                broadcast.watch("composite") as slot,
                broadcast.sound.listen() as listener,
            ):
                video = connection.pc.addTransceiver(PushedTrack(slot, encoder, thread, load), "sendonly")
                sound = connection.pc.addTransceiver("audio", "sendonly") if broadcast.sound.codec else None
                resource = await post_offer(connection, http, self._address)
                hand_over(video, encoder)
                report_in_step(video, broadcast.sound)
                if sound is not None and (codec := codec_of(sound, broadcast.sound.codec)) is not None:
                    send_sound(sound, listener, codec)
                    report_in_step(sound, broadcast.sound)
                self.words = "sending"
                watching = asyncio.create_task(connection.watch(), name="camera-output-watch")
                try:
                    raise CameraFailed(f"the connection ended: {await ended}")
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        finally:
            await asyncio.shield(leave(connection, http, self._address, resource))
            encoder.close()
            await asyncio.shield(thread.close(encoder.close))


class PushedTrack(MediaStreamTrack):
    """The newest composed picture whenever the sender asks for one, encoded on the output's thread."""

    kind = "video"

    def __init__(
        self, slot: NewestSlot[Frame], encoder: PictureEncoder, thread: WatchedThread, load: StreamLoad
    ) -> None:
        super().__init__()
        self._slot, self._encoder, self._thread, self._load = slot, encoder, thread, load

    async def recv(self) -> EncodedPicture:  # type: ignore[override]  # its sender's encoder packs it
        """The next picture, with the time of its frame.

        Raises:
            MediaStreamError: the output is being closed, or a picture could not be encoded.
        """
        try:
            frame = await self._slot.get()
            encoded = await self._thread.run(self._encoder.encode, frame)
        except (Closed, PortraitError, av.error.FFmpegError) as error:
            self.stop()
            raise MediaStreamError from error
        self._load.add_result(time.monotonic(), frame.arrived, (frame.width, frame.height))
        return encoded


def open_output(camera: str, target: Record | Address, sessions: Sessions) -> Output:
    """The output for a target."""
    if isinstance(target, Address) and target.is_webrtc:
        return WhipOutput(camera, target, sessions)
    return WrittenOutput(camera, target, sessions)


def _free_name(folder: Path, name: str, record: Record) -> Path:
    """The path of a segment that is there not yet: a camera that is lost and found may begin two in a second."""
    names = (f"{name}{f'-{number}' if number else ''}.{record.format}" for number in count())
    return next(path for each in names if not (path := folder / each).exists())


def _open_decoder(sound: SoundFormat) -> Any:
    decoder: Any = av.CodecContext.create(sound.codec, "r")
    decoder.sample_rate, decoder.layout, decoder.extradata = sound.rate, sound.layout, sound.extradata
    return decoder
