"""Pictures and video that nobody's encoder made: refused by name, never more memory than their size allows."""

import contextlib
import io
import random
import struct
import zlib
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from aiortc.jitterbuffer import JitterFrame
from PIL import Image

from portrait.backgrounds import load_background
from portrait.errors import BadPicture
from portrait.frame import Timestamp
from portrait.pictures import decode_bgr, frame_from_bgr
from portrait.transports.webrtc import decoders
from tests.mutations import mutated_bytes, rounds
from tests.people import room

LIMIT = 200_000


def peak() -> int:
    """Bytes of memory this process has had at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def seeds() -> list[bytes]:
    found = []
    for suffix, flags in ((".jpg", []), (".png", []), (".webp", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])):
        found += [cv2.imencode(suffix, room(*size), flags)[1].tobytes() for size in ((1, 1), (48, 33), (320, 240))]
    for form in ("JPEG", "PNG", "WEBP"):  # with an orientation, a palette, an animation
        exif = Image.Exif()
        exif[0x0112] = 6
        out = io.BytesIO()
        picture = Image.fromarray(room(40, 30))
        picture.convert("RGB").save(out, form, exif=exif)
        found.append(out.getvalue())
    out = io.BytesIO()
    Image.fromarray(room(40, 30)).convert("P").save(out, "PNG", interlace=1)
    found.append(out.getvalue())
    out = io.BytesIO()
    frames = [Image.fromarray(room(40, 30)) for _ in range(3)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    found.append(out.getvalue())
    return found


def test_no_bytes_of_a_picture_do_anything_but_decode_or_be_refused() -> None:
    corpus, told = seeds(), Counter[str]()
    for dice in rounds(least=500):
        data = mutated_bytes(dice.choice(corpus), dice)
        try:
            pixels = decode_bgr(data, LIMIT)
        except BadPicture:
            told["refused"] += 1
            continue
        assert pixels.shape[0] * pixels.shape[1] <= LIMIT
        frame = frame_from_bgr(pixels, Timestamp(0, Fraction(1)), 0.0)
        assert (frame.height, frame.width) == pixels.shape[:2]
        told["decoded"] += 1
    print(dict(told))
    assert min(told["refused"], told["decoded"]) > 50


def png(width: int, height: int, *chunks: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), *chunks, (b"IDAT", data or zlib.compress(b"")), (b"IEND", b"")):
        body += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return body


BOMBS = {
    "a size of 4 gigapixels": png(65535, 65535),
    "a size beyond 2**31 pixels": png(2**31 - 1, 2**31 - 1),
    "a text of a gigabyte": png(8, 8, (b"zTXt", b"x\0\0" + zlib.compress(bytes(2**28), 9) * 4)),
    "a profile of a gigabyte": png(8, 8, (b"iCCP", b"x\0\0" + zlib.compress(bytes(2**28), 9) * 4)),
    "rows that go on for ever": png(8, 8, data=zlib.compress(bytes(2**28), 9)),
    "a JPEG of 65535x65535": cv2.imencode(".jpg", room(8, 8))[1].tobytes().replace(b"\x00\x08\x00\x08", b"\xff" * 4),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_never_takes_much_memory(bomb: str) -> None:
    data = BOMBS[bomb]
    assert len(data) < 2 * 2**20
    forget_peak()
    before = peak()
    for work in (lambda: decode_bgr(data, LIMIT), lambda: load_background(data)):
        with contextlib.suppress(BadPicture):
            work()
    assert peak() - before < 150 * 2**20


def key_frame(codec: str, width: int, height: int) -> bytes:
    """An encoder's picture of that size."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuv420p", Fraction(1, 30)
    if codec == "libx264":
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    picture = av.VideoFrame.from_ndarray(np.zeros((height * 3 // 2, width), np.uint8), format="yuv420p")
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def test_a_vp8_key_frame_that_claims_a_huge_size_costs_nothing() -> None:
    """67 bytes that would take libvpx a gigabyte."""
    data = bytearray(key_frame("libvpx", 64, 64))
    decoder = decoders.BoundedVp8Decoder()
    assert [frame.width for frame in decoder.decode(JitterFrame(bytes(data), 0))] == [64]
    data[6:10] = (16383).to_bytes(2, "little") * 2
    forget_peak()
    before = peak()
    with pytest.raises(av.error.InvalidDataError, match="16383x16383 is 268402689 pixels"):
        decoder.decode(JitterFrame(bytes(data), 0))
    assert peak() - before < 20 * 2**20


@pytest.mark.parametrize(
    ("codec", "kind"), [("libvpx", decoders.BoundedVp8Decoder), ("libx264", decoders.BoundedH264Decoder)]
)
def test_no_decoder_gives_a_picture_above_the_bound(codec: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "MAX_PIXELS", 320 * 240)
    assert len(kind().decode(JitterFrame(key_frame(codec, 320, 240), 0))) == 1
    with pytest.raises(av.FFmpegError):
        kind().decode(JitterFrame(key_frame(codec, 640, 480), 0))


@pytest.mark.parametrize(
    ("codec", "kind"), [("libvpx", decoders.BoundedVp8Decoder), ("libx264", decoders.BoundedH264Decoder)]
)
def test_no_bytes_of_a_video_do_anything_but_decode_or_be_refused(codec: str, kind: type) -> None:
    data, told = key_frame(codec, 64, 48), Counter[str]()
    for dice in rounds(least=200, seconds=1.0):
        decoder = kind()
        for _ in range(3):
            try:
                told["decoded"] += len(decoder.decode(JitterFrame(mutated_bytes(data, dice), 0)))
            except av.FFmpegError:
                told["refused"] += 1
    print(dict(told))
    assert told["refused"] > 20


def test_the_mutations_are_the_same_for_the_same_seed() -> None:
    one, two = (mutated_bytes(b"a picture", random.Random(7)) for _ in range(2))
    assert one == two
