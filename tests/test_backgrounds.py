"""Backgrounds that move: short films, decoded once within a bound, and what is no film refused."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import aiohttp
import av
import cv2
import numpy as np
import pytest

import portrait.image.backgrounds
from portrait.client import Client, ClientError
from portrait.core.compositors import Options, open_compositor
from portrait.core.segmenters import load_models
from portrait.errors import BadPicture
from portrait.image import clip as films
from portrait.image.backgrounds import PICTURE_THREADS, Backgrounds, load_background
from portrait.image.clip import KEPT_BYTES, LONGEST, RATE, Clip, load_clip
from portrait.image.compressed import encode
from portrait.image.convert import bgr_from_frame, frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp, i420_length
from portrait.server.app import CODEC_THREADS, run_service
from portrait.settings import Settings
from portrait.transports.files import remote_work
from portrait.transports.grpc.codec import GrpcCodec, IncomingPicture, read_output
from portrait.v1 import segmentation_pb2 as pb
from tests.people import room

CODECS = {".mp4": "libx264", ".webm": "libvpx"}
COLORS = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
"""One for each third of a film."""


def write(
    path: Path,
    size: tuple[int, int] = (320, 180),
    seconds: float = 3.0,
    rate: int = 30,
    layout: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A film of plain colours, in another container than its name says with `layout`."""
    with av.open(str(path), "w", format=layout, container_options=container_options or {}) as container:
        video = container.add_stream(CODECS[path.suffix], rate=rate, options={"g": "15"})
        (video.width, video.height), video.pix_fmt = size, "yuv420p"
        count = round(seconds * rate)
        for i in range(count):
            picture = np.full((size[1], size[0], 3), COLORS[3 * i // count], np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = i, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def color_of(frame: Frame) -> list[float]:
    return [float(value) for value in bgr_from_frame(frame).reshape(-1, 3).mean(axis=0)]


@pytest.mark.parametrize("suffix", CODECS)
def test_a_film_is_decoded_at_half_the_rate_and_shown_over_and_over(tmp_path: Path, suffix: str) -> None:
    film = load_clip(write(tmp_path / f"film{suffix}"))
    assert (len(film.frames), film.rate) == (45, RATE)
    assert (film.frames[0].width, film.frames[0].height) == (320, 180)
    for seconds, color in ((0.5, 0), (1.5, 1), (2.5, 2), (3.5, 0), (301.5, 1)):
        assert color_of(film.at(seconds)) == pytest.approx(COLORS[color], abs=12)


def test_a_film_takes_no_more_memory_than_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "KEPT_BYTES", 2**20)
    film = load_clip(write(tmp_path / "film.mp4", (640, 360)))
    kept = sum(plane.nbytes for frame in film.frames for plane in (frame.y, frame.u, frame.v))
    assert 2**19 < kept <= 2**20
    assert film.frames[0].width / film.frames[0].height == pytest.approx(16 / 9, rel=0.03)
    assert KEPT_BYTES == 64 * 2**20


def test_a_film_that_does_not_say_how_long_it_is_is_kept_as_the_longest_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As browsers record them."""
    monkeypatch.setattr(films, "KEPT_BYTES", 2**20)
    film = load_clip(write(tmp_path / "film.webm", container_options={"live": "1"}))
    assert (len(film.frames), film.rate) == (45, RATE)
    longest = LONGEST * RATE * i420_length(film.frames[0].width, film.frames[0].height)
    assert 2**19 < longest <= 2**20


def test_the_background_is_the_films_picture_at_the_frames_time(tmp_path: Path) -> None:
    compositor = open_compositor(Options("image", background=load_clip(write(tmp_path / "film.mp4"))))
    for seconds, color in ((0, 0), (1, 1), (2, 2), (3, 0)):
        frame = frame_from_bgr(room(160, 120), Timestamp(90_000 * seconds + 9000, Fraction(1, 90_000)), 5.0)
        assert color_of(compositor.compose(frame, Mask.empty(32, 32))) == pytest.approx(COLORS[color], abs=12)


def test_a_film_begins_with_its_first_picture_where_a_streams_time_begins_at_0(tmp_path: Path) -> None:
    compositor = open_compositor(Options("image", background=load_clip(write(tmp_path / "film.mp4"))))
    for ticks in (0, 3000, 6000):
        frame = frame_from_bgr(room(160, 120), Timestamp(ticks, Fraction(1, 90_000)), 5001.5)
        assert color_of(compositor.compose(frame, Mask.empty(32, 32))) == pytest.approx(COLORS[0], abs=12)


@pytest.mark.parametrize("times", [(0, 33_333, 66_667), (0, 0, 0)], ids=["media time", "no time"])
def test_a_film_does_not_jump_behind_a_grpc_stream(tmp_path: Path, times: tuple[int, ...]) -> None:
    model = load_models().pick(None)
    compositor = open_compositor(Options("image", background=load_clip(write(tmp_path / "film.mp4"))))
    codec, output = GrpcCodec(10**6, model), read_output(pb.Output(mode="image"), None)
    data = encode(room(160, 120), ".jpg")
    for number, time in enumerate(times):
        picture = pb.Picture(format=pb.PICTURE_FORMAT_JPEG, data=data)
        frame = codec.decode(IncomingPicture(picture, output, time), 5001.5 + number / 30, output.options)
        assert color_of(compositor.compose(frame, Mask.empty(32, 32))) == pytest.approx(COLORS[0], abs=12)


async def test_a_still_of_the_gallery_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wall.png"
    path.write_bytes(encode(np.full((40, 60, 3), 90, np.uint8), ".png"))
    counted: list[object] = []
    decode = portrait.image.backgrounds.load_background

    def count(data: bytes) -> Frame:
        counted.append(None)
        return decode(data)

    monkeypatch.setattr(portrait.image.backgrounds, "load_background", count)
    backgrounds = Backgrounds(tmp_path)
    first = await backgrounds.still("wall")
    assert await backgrounds.still("wall") is first
    assert len(counted) == 1
    path.write_bytes(encode(np.full((40, 60, 3), 200, np.uint8), ".png"))
    os.utime(path, ns=(1, 1))
    changed = cv2.imdecode(np.frombuffer(await backgrounds.still("wall"), np.uint8), cv2.IMREAD_COLOR)
    assert changed.mean() == pytest.approx(200, abs=3)


async def test_sessions_share_a_film_and_the_last_gives_it_back(tmp_path: Path) -> None:
    write(tmp_path / "rain.mp4")
    backgrounds = Backgrounds(tmp_path)
    assert "rain" in backgrounds.names
    one, other = await asyncio.gather(backgrounds.pick("rain"), backgrounds.pick("rain"))
    assert isinstance(one, Clip)
    assert one is other
    number = id(one.frames)
    del one, other
    await asyncio.sleep(0)  # the loop's own step holds what it has handed over
    gc.collect()
    assert not len(backgrounds._clips)
    assert isinstance(await backgrounds.pick("rain"), Clip), number


async def test_sessions_share_a_picture_until_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask for pictures at once, one is decoded at a time."""
    lock, decoded = threading.Lock(), []

    def load(data: bytes) -> Frame:
        assert lock.acquire(blocking=False), "two pictures are decoded at once"
        try:
            decoded.append(len(data))
            return load_background(data)
        finally:
            lock.release()

    monkeypatch.setattr(portrait.image.backgrounds, "load_background", load)
    paths = [tmp_path / f"{name}.png" for name in ("wall", "shelf")]
    for path in paths:
        path.write_bytes(encode(room(64, 48), ".png"))
    backgrounds = Backgrounds(tmp_path)
    picked = await asyncio.gather(*(backgrounds.pick(name) for name in ("wall", "shelf", "office") * 4))
    assert len({id(frame) for frame in picked}) == 3
    assert len(decoded) == 3
    paths[0].write_bytes(encode(np.zeros((48, 64, 3), np.uint8), ".png"))
    os.utime(paths[0], ns=(1, 1))
    changed = await backgrounds.pick("wall")
    assert isinstance(changed, Frame)
    assert changed is not picked[0]
    del picked, changed
    await asyncio.sleep(0)
    gc.collect()
    assert not len(backgrounds._pictures)


@pytest.mark.parametrize(
    ("size", "kept"), [((3000, 1000), (1920, 640)), ((600, 2400), (480, 1920)), ((64, 48), (64, 48))]
)
def test_a_background_is_kept_no_larger_than_it_is_shown(size: tuple[int, int], kept: tuple[int, int]) -> None:
    frame = load_background(encode(room(*size), ".jpg"))
    assert (frame.width, frame.height) == kept


class Slow:
    """What decodes films and pictures, at a pace the test gives."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.decoded: list[str] = []

    def load_clip(self, path: Path) -> Clip:
        self._wait()
        self.decoded.append(path.stem)
        return load_clip(path)

    def load_background(self, data: bytes) -> Frame:
        self._wait()
        return load_background(data)

    def _wait(self) -> None:
        self.began.release()
        assert self.may_end.wait(60)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(portrait.image.backgrounds, "load_clip", slow.load_clip)
    monkeypatch.setattr(portrait.image.backgrounds, "load_background", slow.load_background)
    return slow


async def test_backgrounds_that_take_long_hold_up_nobody_else(slow: Slow, settings: Settings, tmp_path: Path) -> None:
    write(tmp_path / "rain.mp4")
    picture, scene = room(64, 48), encode(room(64, 48), ".jpg")
    changed = settings.model_copy(update={"backgrounds": tmp_path, "max_sessions": 4 * CODEC_THREADS})
    async with (
        run_service(changed) as running,
        Client(f"127.0.0.1:{running.grpc_port}") as client,
        aiohttp.ClientSession(f"http://127.0.0.1:{running.http_port}") as http,
    ):
        asking = [
            asyncio.create_task(client.segment(picture, mode="image", background_name="rain"))
            for _ in range(CODEC_THREADS)
        ]
        assert await asyncio.to_thread(slow.began.acquire, timeout=60)
        async with http.get("/v1/backgrounds/rain/still") as response:  # its first picture needs no other
            assert response.status == 200
        asking += [
            asyncio.create_task(client.segment(picture, mode="image", background_picture=scene))
            for _ in range(PICTURE_THREADS)
        ]
        for _ in range(PICTURE_THREADS):
            assert await asyncio.to_thread(slow.began.acquire, timeout=60)
        # The service runs on this loop: these threads are those that encode everybody's frames.
        free = threading.Barrier(CODEC_THREADS)
        await asyncio.gather(*(asyncio.to_thread(free.wait, 60) for _ in range(CODEC_THREADS)))
        assert (await client.segment(picture, mode="blur")).array.shape == (48, 64, 3)
        assert not any(task.done() for task in asking)
        slow.may_end.set()
        assert all(reply.array.shape == (48, 64, 3) for reply in await asyncio.gather(*asking))


async def test_nothing_is_decoded_for_who_has_gone(slow: Slow, tmp_path: Path) -> None:
    write(tmp_path / "rain.mp4")
    write(tmp_path / "snow.mp4")
    backgrounds = Backgrounds(tmp_path)
    first = asyncio.create_task(backgrounds.pick("rain"))
    assert await asyncio.to_thread(slow.began.acquire, timeout=60)
    second = asyncio.create_task(backgrounds.pick("snow"))
    await asyncio.sleep(0)  # it is in line
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    slow.may_end.set()
    film = await first
    assert await backgrounds.pick("rain") is film
    assert slow.decoded == ["rain"]


def playlist(path: Path) -> None:
    """What FFmpeg, left to find out by itself, would open the named file for."""
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{path.parent}/other.mp4\n#EXT-X-ENDLIST\n")


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=48_000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 48_000, 0
        container.mux([*audio.encode(tone), *audio.encode()])


def cut_short(path: Path) -> None:
    whole = write(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("hello"), "cannot be decoded as mp4"),
    "nothing": (lambda path: path.write_bytes(b""), "cannot be decoded as mp4"),
    "a playlist": (playlist, "cannot be decoded as mp4"),
    "another container": (lambda path: write(path, layout="mpegts"), "cannot be decoded as mp4"),
    "sound": (sound_only, "has no video"),
    "cut short": (cut_short, "cannot be decoded as mp4"),
    "too long": (lambda path: write(path, (32, 32), 21.0, 5), "21.0 s long; expected at most 20 s"),
    "too large": (lambda path: write(path, (2560, 1440), 0.1), "2560x1440 is 3686400 pixels; expected at most"),
    "too many bytes": (lambda path: path.touch() or os.truncate(path, 2**27), "134217728 bytes; expected at most"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_what_is_no_film_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    make, message = HOSTILE[kind]
    write(tmp_path / "other.mp4")
    make(tmp_path / "film.mp4")
    with pytest.raises(BadPicture, match=f"background: .*{message}") as refused:
        await Backgrounds(tmp_path).pick("film")
    assert str(tmp_path) not in str(refused.value)


async def test_suffixes_count_as_cameras_and_phones_write_them(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "beach.jpeg"), room(64, 48))
    (tmp_path / "beach.jpeg").rename(tmp_path / "beach.JPEG")
    write(tmp_path / "rain.mp4").rename(tmp_path / "rain.MP4")
    backgrounds = Backgrounds(tmp_path)
    assert isinstance(await backgrounds.pick("beach"), Frame)
    assert isinstance(await backgrounds.pick("rain"), Clip)


@pytest.mark.parametrize("name", ["rain.mp4", "beach.jpg"])
async def test_a_background_whose_file_has_gone_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    backgrounds = Backgrounds(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BadPicture, match=f"background: {name} cannot be read: No such file"):
        await backgrounds.pick(Path(name).stem)
    with pytest.raises(BadPicture, match=f"background: {name} cannot be read: No such file"):
        await backgrounds.still(Path(name).stem)


async def test_a_film_moves_behind_a_stream_and_one_that_is_none_costs_its_asker_only(
    settings: Settings, tmp_path: Path
) -> None:
    write(tmp_path / "rain.webm")
    (tmp_path / "broken.mp4").write_text("hello")
    picture = np.ascontiguousarray(room(320, 240)[..., ::-1])
    async with run_service(settings.model_copy(update={"backgrounds": tmp_path})) as running:
        async with Client(f"127.0.0.1:{running.grpc_port}") as client:
            async with client.open_stream(mode="image", background_name="rain", every_frame=True) as stream:
                for i, color in enumerate(COLORS):
                    await stream.send(picture, i, timestamp_us=1_000_000 * i + 100_000)
                    reply = await stream.receive()
                    assert reply is not None
                    corner = reply.array[:40, :40, ::-1].reshape(-1, 3).mean(axis=0)
                    assert corner == pytest.approx(color, abs=14)
            with pytest.raises(ClientError, match=r"broken.mp4 cannot be decoded"):
                await client.segment(picture, mode="image", background_name="broken")
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{running.http_port}") as http,
            http.get("/v1/backgrounds/rain/still") as response,
        ):
            assert response.content_type == "image/jpeg"
            still = cv2.imdecode(np.frombuffer(await response.read(), np.uint8), cv2.IMREAD_COLOR)
    assert still.reshape(-1, 3).mean(axis=0) == pytest.approx(COLORS[0], abs=14)


async def test_a_film_at_a_service_goes_by_the_videos_time(settings: Settings, tmp_path: Path) -> None:
    """Wherever that begins: an edit list makes times below 0."""
    write(tmp_path / "rain.webm")
    seconds = [-2, 0, 1, 2]
    frames = [frame_from_bgr(room(320, 240), Timestamp(10 * at, Fraction(1, 10)), float(at)) for at in seconds]

    def corners(address: str) -> list[list[float]]:
        with remote_work(Client(address), "", mode="image", background_name="rain") as work:
            shown = [bgr_from_frame(result) for result in work(frames)]
        return [[float(value) for value in picture[:40, :40].reshape(-1, 3).mean(axis=0)] for picture in shown]

    async with run_service(settings.model_copy(update={"backgrounds": tmp_path})) as running:
        found = await asyncio.to_thread(corners, f"127.0.0.1:{running.grpc_port}")
    for at, corner in zip(seconds, found, strict=True):
        assert corner == pytest.approx(COLORS[at % 3], abs=14)
