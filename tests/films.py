"""Films, folders of them, and `portrait process` as a process: what the tests of files and addresses share."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.people import Array, clip

SHOWN = clip(320, 240, 20)
COMMAND = [sys.executable, "-m", "portrait", "process"]
GREEN = ["--mode", "color", "--color", "#00ff00"]

FFMPEG = shutil.which("ffmpeg")

needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed: run make media-packages")


def write_video(path: Path, turned: bool = False, sound: bool = True) -> None:
    """An H.264 video of the clip, a quarter turn to the left where `turned`, with a tone where `sound`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "12"})
        frames = [np.rot90(frame, 1 if turned else 0) for frame in SHOWN.frames]
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        if sound:
            audio = container.add_stream("aac", rate=48_000, layout="mono")
            samples = (0.3 * np.sin(np.arange(38_400) * 2 * np.pi * 440 / 48_000)).astype(np.float32)[None]
            tone = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 48_000, 0
            container.mux([*audio.encode(tone), *audio.encode()])
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())


def read_video(path: Path) -> list[Array]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in container.decode(video=0)]


FILM = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": "10"}),
    "h265": ("libx265", {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "keyint=10:log-level=none"}),
}


def film(path: Path, times: int, size: tuple[int, int] = (320, 240), codec: str = "h264") -> Path:
    """The clip so many times in a row, with a key frame every ten: a viewer that joins late sees something soon."""
    name, options = FILM[codec]
    shown = [np.ascontiguousarray(cv2.resize(frame, size)) for frame in SHOWN.frames]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(name, rate=25, options=options)
        (video.width, video.height), video.pix_fmt = size, "yuv420p"
        for i in range(times * len(shown)):
            frame = av.VideoFrame.from_ndarray(shown[i % len(shown)], format="bgr24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


PACKET, PMT, H264, AVS3 = 188, 0x1000, 0x1B, 0xD4
"""Of MPEG-TS (ISO 13818-1): a packet's bytes, where FFmpeg writes the map of the streams, and two of their types."""


def undecodable(film: Path, path: Path) -> Path:
    """An H.264 film as MPEG-TS that says AVS3 of itself, which FFmpeg knows and the package av cannot decode."""
    with av.open(str(film)) as source, av.open(str(path), "w", format="mpegts") as written:
        video = written.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                written.mux(packet)
    stream = bytearray(path.read_bytes())
    for at in range(0, len(stream), PACKET):
        if int.from_bytes(stream[at + 1 : at + 3]) & 0x1FFF == PMT:
            section = at + 5 + stream[at + 4]
            end = section + 3 + (int.from_bytes(stream[section + 1 : section + 3]) & 0xFFF)
            kind = section + 12 + (int.from_bytes(stream[section + 10 : section + 12]) & 0xFFF)
            assert stream[kind] == H264
            stream[kind] = AVS3
            stream[end - 4 : end] = _crc(stream[section : end - 4]).to_bytes(4)
    path.write_bytes(stream)
    return path


def _crc(section: bytes) -> int:
    """The checksum of a table in MPEG-TS (ISO 13818-1, annex A)."""
    crc = 0xFFFFFFFF
    for byte in section:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stills, one of them below, a video, and what is neither."""
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    cv2.imwrite(str(source / "one.jpg"), SHOWN.frames[0])
    cv2.imwrite(str(source / "deep" / "two.png"), clip(320, 240, 1, number=3).frames[0])
    write_video(source / "film.mp4", sound=False)
    (source / "notes.txt").write_text("hello")
    return source


def results(target: Path) -> set[str]:
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


def is_green(frame: Array) -> bool:
    """Its corner is what mode color makes of the room."""
    return bool(np.abs(frame[:20, :20].reshape(-1, 3).mean(axis=0) - (0, 255, 0)).max() < 12)


def first_picture(url: str) -> tuple[str, bool]:
    """The codec at an address, and whether its first picture has the green of mode color."""
    with av.open(url, options={"rtsp_transport": "tcp"} if url.startswith("rtsp") else {}, timeout=20) as container:
        frame = next(container.decode(video=0))
        picture = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        return container.streams.video[0].codec_context.name, is_green(picture)


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # No preexec_fn: subprocess would fork, and a fork of a process that uses gRPC may abort before it is another.
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


GSTREAMER = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
PYTHON = "/usr/bin/python3"
"""The system's, which has GStreamer's bindings."""


def has_gstreamer() -> bool:
    return Path(PYTHON).exists() and not subprocess.run([PYTHON, "-c", GSTREAMER], capture_output=True).returncode


needs_gstreamer = pytest.mark.skipif(
    not has_gstreamer(), reason="GStreamer's RTSP server is not installed: run make media-packages"
)


@contextmanager
def rtsp_camera(
    shown: Path | None, sound: str = "", port: int = 0, password: str = "", called: str = ""
) -> Iterator[str]:
    """The address of a camera that is not ours, with sound in G.711 where `alaw`, `mulaw` or `endless`.

    With a `password` it asks for it, and for the user `admin`; `called` is what it calls the codec of its video. It has
    no video where nothing is `shown`.
    """
    peer = Path(__file__).with_name("rtsp_peer.py")
    with running(PYTHON, peer, shown or "", sound, port, password, called) as camera:
        assert camera.stdout is not None
        yield camera.stdout.readline().strip()


def has_pictures(path: Path) -> bool:
    """Whether a recording has begun. The header, which is written first, has less than a kilobyte."""
    return path.exists() and path.stat().st_size > 4096


def write_at(
    path: Path,
    times: Sequence[float],
    codec: str = "libx264",
    time_base: Fraction = Fraction(1, 90_000),
    rotation: int = 0,
    **looks: Any,
) -> Path:
    """A small video whose pictures have these times, in seconds; `looks` are attributes of its encoder's context."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=30)
        video.width, video.height, video.pix_fmt = looks.pop("width", 160), looks.pop("height", 120), "yuv420p"
        if codec == "mjpeg":
            video.pix_fmt = "yuvj420p"
        if rotation:
            video.set_display_rotation(rotation)
        for name, value in (looks | {"time_base": time_base}).items():
            setattr(video.codec_context, name, value)
        for i, at in enumerate(times):
            picture = cv2.resize(SHOWN.frames[i % len(SHOWN.frames)], (video.width, video.height))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            doubled = i > 0 and at == times[i - 1]
            frame.pts, frame.time_base = round(at / time_base) + doubled, time_base
            packets = video.encode(frame)
            for packet in packets if doubled else []:  # which no encoder takes
                packet.pts = packet.dts = packet.pts - 1
            container.mux(packets)
        container.mux(video.encode())
    return path


def times_of(path: Path) -> list[float]:
    """The times of a video's pictures, in seconds."""
    with av.open(str(path)) as container:
        return [float(frame.time or 0.0) for frame in container.decode(video=0)]


def ffmpeg(*arguments: object) -> None:
    """Run the ffmpeg command."""
    assert FFMPEG is not None
    subprocess.run([FFMPEG, "-v", "error", "-y", *map(str, arguments)], check=True, timeout=300)
