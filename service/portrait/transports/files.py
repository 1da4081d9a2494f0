"""Files in, files out: stills and videos, through a pipeline here or a service elsewhere."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import cv2
import numpy as np

from portrait.client import Client, Picture
from portrait.compositors import Options, open_compositor
from portrait.errors import BadOption, BadPicture, SegmentationFailed
from portrait.frame import Frame, Plane, Timestamp, pack_i420
from portrait.metrics import Metrics
from portrait.pictures import (
    PictureFormat,
    bgr_from_frame,
    decode_bgr,
    encode,
    frame_from_bgr,
    frame_from_i420,
    rgba_from_frame,
)
from portrait.pipeline import Pipeline
from portrait.segmenters import Model
from portrait.v1 import segmentation_pb2 as pb
from portrait.video import av_from_frame, frame_from_av

Work: TypeAlias = Callable[[Frame], Frame]
"""A frame to its composed result."""

STILLS: dict[str, PictureFormat] = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png", ".webp": ".webp"}
MAX_PIXELS = 2**26
QUALITY = "18"
"""x264's constant rate factor; the eye hardly tells it from the original."""


@contextmanager
def local_work(model: Model, options: Options) -> Iterator[Work]:
    """Through a pipeline of this process."""
    compositor, metrics = open_compositor(options), Metrics()
    pipeline = Pipeline(model.open(), (model.width, model.height), metrics)

    def work(frame: Frame) -> Frame:
        result = pipeline.run(frame, options, compositor)
        if result.failure is not None:
            raise SegmentationFailed(f"frame at {frame.arrived:.3f} s: {result.failure}") from result.failure
        return result.compose()

    try:
        yield work
    finally:
        pipeline.close()


@contextmanager
def remote_work(server: str, model: str, **output: Any) -> Iterator[Work]:
    """Through a stream of a running service; every frame is answered."""
    with asyncio.Runner() as runner:
        client = Client(server)
        runner.run(client.__aenter__())
        opened = client.open_stream(model=model, every_frame=True, format=pb.PICTURE_FORMAT_I420, **output)
        stream = runner.run(opened.__aenter__())

        async def turn(frame: Frame) -> Frame:
            await stream.send(Picture.i420(pack_i420(frame), frame.width, frame.height), frame.timestamp.ticks)
            reply = await stream.receive()
            if reply is None:
                raise SegmentationFailed("the server ended the stream")
            if reply.error is not None:
                raise reply.error
            width, height = reply.picture.width, reply.picture.height
            return frame_from_i420(reply.picture.data, width, height, frame.timestamp, frame.arrived)

        try:
            yield lambda frame: runner.run(turn(frame))
        finally:
            runner.run(opened.__aexit__(None, None, None))
            runner.run(client.__aexit__(None, None, None))


def process_still(source: Path, target: Path, work: Work) -> int:
    """One picture. Returns the number of frames, 1.

    Raises:
        BadPicture: the source is no picture.
        BadOption: the target's suffix is unknown, or JPEG for a cutout.
    """
    frame = frame_from_bgr(decode_bgr(source.read_bytes(), MAX_PIXELS), Timestamp(0, Fraction(1)), 0.0)
    result = work(frame)
    suffix = STILLS.get(target.suffix.lower())
    if suffix is None or (result.alpha is not None and suffix == ".jpg"):
        expected = ".png or .webp" if result.alpha is not None else ", ".join(STILLS)
        raise BadOption("OUT", f"{target.name} cannot hold the result; expected a name in {expected}")
    target.write_bytes(encode(bgr_from_frame(result) if result.alpha is None else rgba_from_frame(result), suffix))
    return 1


def process_video(source: Path, target: Path, work: Work, progress: Callable[[int, int], None]) -> int:
    """Every frame of a video, its sound copied as it is. Returns the number of frames.

    `progress` is called with the frames done and the frames expected (0: not known) after each.

    Raises:
        BadPicture: the source is no video.
        BadOption: the target's format cannot hold it.
    """
    try:
        opened = av.open(str(source))
    except (av.error.FFmpegError, OSError) as error:
        raise BadPicture("IN", f"{source}: no video: {error}") from error
    with opened:
        if not opened.streams.video:
            raise BadPicture("IN", f"{source}: has no video stream")
        try:
            with av.open(str(target), "w") as output:
                return _transcode(opened, output, work, progress)
        except (av.error.FFmpegError, ValueError) as error:
            raise BadOption("OUT", f"{target}: cannot be written: {error}") from error


def _transcode(
    source: av.container.InputContainer,
    target: av.container.OutputContainer,
    work: Work,
    progress: Callable[[int, int], None],
) -> int:
    video = source.streams.video[0]
    video.thread_type = "AUTO"
    rate = video.average_rate or Fraction(30)
    expected = video.frames or int(float((source.duration or 0) / av.time_base) * float(rate))
    sound = [(stream, target.add_stream_from_template(stream)) for stream in source.streams.audio]
    copies = dict(sound)
    encoder: Any = None
    done = 0
    # Sound that comes before the first picture waits: no stream can be added once anything has been written, and the
    # size of the video is known from its first picture only.
    waiting: list[av.Packet[Any]] = []
    for packet in source.demux([video, *copies]):
        if packet.stream in copies:
            if packet.dts is not None:  # the flushing packet at the end carries nothing
                packet.stream = copies[packet.stream]
                waiting.append(packet)
        else:
            for picture in packet.decode():
                assert isinstance(picture, av.VideoFrame)
                result = work(_upright(picture))
                if encoder is None:
                    encoder = _open_encoder(target, result, rate, video.time_base)
                target.mux(encoder.encode(av_from_frame(_even(result))))
                done += 1
                progress(done, expected)
        if encoder is not None:
            target.mux(waiting)
            waiting = []
    if encoder is None:
        raise BadPicture("IN", "no picture of the video could be decoded")
    target.mux(encoder.encode())
    return done


def _open_encoder(
    target: av.container.OutputContainer, frame: Frame, rate: Fraction, time_base: Fraction | None
) -> Any:
    encoder = target.add_stream("libx264", rate=rate, options={"crf": QUALITY, "preset": "veryfast"})
    encoder.width, encoder.height = frame.width - frame.width % 2, frame.height - frame.height % 2
    encoder.pix_fmt = "yuv420p"
    if time_base is not None:
        encoder.time_base = time_base
    return encoder


def _upright(picture: av.VideoFrame) -> Frame:
    """A Frame turned as the display matrix says: phones write their videos lying on the side."""
    seconds = float(picture.time or 0.0)
    frame = frame_from_av(picture, MAX_PIXELS, arrived=seconds)
    turns = round(picture.rotation / 90) % 4
    if not turns:
        return frame
    y, u, v = (_turned(plane, turns) for plane in (frame.y, frame.u, frame.v))
    return frame.with_planes(y, u, v)


def _turned(plane: Plane, quarter_turns: int) -> Plane:
    codes = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
    return np.asarray(cv2.rotate(np.ascontiguousarray(plane), codes[quarter_turns]), np.uint8)


def _even(frame: Frame) -> Frame:
    """H.264 in 4:2:0 has even sizes only: the last odd row or column goes."""
    height, width = frame.height - frame.height % 2, frame.width - frame.width % 2
    chroma = slice(height // 2), slice(width // 2)
    return frame.with_planes(frame.y[:height, :width], frame.u[chroma], frame.v[chroma])
