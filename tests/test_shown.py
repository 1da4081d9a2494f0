"""Stills as a viewer shows them: profiles, inks, depths, palettes, orientation; and nothing of what was erased."""

import io
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from portrait.core.compositors import Options, open_compositor
from portrait.errors import BadPicture
from portrait.image.backgrounds import load_background
from portrait.image.compressed import decode_frame, encode, read_size
from portrait.image.convert import bgr_from_frame, bgra_from_frame, frame_from_bgr, pixels_of
from portrait.image.frame import Frame, Mask, Plane, Timestamp
from portrait.image.headers import picture_format
from tests.frames import decode_bgr
from tests.people import room
from tests.profiles import P3, SRGB, profile

NOW = Timestamp(1, Fraction(1, 30))
SIZE = (120, 80)
EVERYBODY = Mask(np.full((96, 96), 255, np.uint8))
ERASED = (230, 20, 200)
"""Red, green and blue of what was erased: nothing else here is like it."""


def smooth(size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture without edges, which chroma at half size would blur."""
    return Image.fromarray(room(8, 6)[..., ::-1]).resize(size, Image.Resampling.BICUBIC)


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == "JPEG":
        options = {"quality": 97, "subsampling": 0} | options
    if kind == "WEBP":
        options = {"quality": 97} | options
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def decoded(data: bytes) -> Frame:
    return decode_frame(data, 10**7, "image", NOW, 0.0)


def rgb_of(data: bytes) -> Plane:
    return decode_bgr(data, 10**7)[..., ::-1]


def difference(data: bytes, expected: Image.Image) -> float:
    got = rgb_of(data)
    assert got.shape[:2] == expected.size[::-1]
    return float(np.abs(got.astype(int) - np.asarray(expected.convert("RGB"))).mean())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("colour", [(200, 90, 70), (60, 170, 60), (128, 128, 128), (250, 20, 20)], ids=str)
def test_a_picture_with_a_profile_has_srgbs_colours(kind: str, colour: tuple[int, int, int]) -> None:
    display_p3, options = profile(b"wide", P3), {"lossless": True} if kind == "WEBP" else {}
    data = written(Image.new("RGB", (64, 48), colour), kind, icc_profile=display_p3, **options)
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(display_p3)), ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(Image.new("RGB", (64, 48), colour), source, target)
    assert shown is not None
    assert difference(data, shown) < 3
    assert (difference(data, Image.new("RGB", (64, 48), colour)) > 3) == (colour != (128, 128, 128))


@pytest.mark.parametrize("options", [{}, {"lossless": True}], ids=str)
def test_a_webp_with_a_profile_and_an_alpha_has_srgbs_colours(options: dict[str, Any]) -> None:
    image = Image.new("RGBA", (64, 48), (200, 90, 70, 255))
    image.paste((*ERASED, 0), (32, 0, 64, 48))
    frame = decoded(written(image, "WEBP", icc_profile=profile(b"wide", P3), exact=True, **options))
    shown = bgra_from_frame(frame)[24, 8]
    assert shown.tolist() == pytest.approx([58, 83, 216, 255], abs=6)
    assert frame.alpha is not None
    assert not frame.alpha[:, 34:].any()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_profile_of_srgb_or_of_no_use_changes_nothing(kind: str) -> None:
    plain = rgb_of(written(smooth(), kind))
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for icc in (profile(b"own", SRGB), b"no profile at all" * 20, profile(b"wide", P3)[:200], grey):
        assert (rgb_of(written(smooth(), kind, icc_profile=icc)) == plain).all()


def test_a_small_decoding_is_small_whatever_the_profile() -> None:
    data = written(smooth((640, 480)), "JPEG", icc_profile=profile(b"wide", P3))
    frame = decode_frame(data, 10**7, "image", NOW, 0.0, least=60)
    assert (frame.width, frame.height, frame.came) == (80, 60, (640, 480))


@pytest.mark.parametrize("size", [(386, 385), (385, 386), (770, 769), (1538, 1537), (387, 385)], ids=str)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_small_decoding_knows_the_size_of_a_picture_that_is_nearly_square(
    size: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(Image.new("RGB", size, (90, 90, 90)), "JPEG", exif=exif)
    frame = decode_frame(data, 10**8, "image", NOW, 0.0, least=192)
    assert frame.width < size[0]
    assert frame.came == (size if orientation < 5 else size[::-1])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_picture_is_turned_upright_as_its_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(smooth(), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert difference(data, upright) < 4
    assert read_size(data, 10**6, "image") == SIZE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(3), b"x" * 40])
def test_a_damaged_exif_turns_nothing(kind: str, exif: bytes) -> None:
    assert difference(written(smooth(), kind, exif=exif), smooth()) < 4


@pytest.mark.parametrize("mode", ["CMYK", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_a_jpeg_in_inks_or_in_grey_is_shown(mode: str, options: dict[str, Any]) -> None:
    image = smooth().convert(mode)
    assert difference(written(image, "JPEG", **options), image) < 4


def deep_png(mode: str) -> tuple[bytes, Image.Image]:
    """A PNG of 16 bits a channel, and what it shows; Pillow writes grey only, so OpenCV writes colours."""
    shown = smooth() if mode == "RGB" else smooth().convert("L")
    deep = np.asarray(shown).astype(np.uint16) * 257
    return cv2.imencode(".png", deep[..., ::-1] if mode == "RGB" else deep)[1].tobytes(), shown


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_png_of_16_bits_is_shown(mode: str) -> None:
    data, shown = deep_png(mode)
    assert data[24] == 16
    assert difference(data, shown) < 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA"])
def test_every_kind_of_png_is_shown(mode: str) -> None:
    source = smooth().quantize(32) if mode[0] == "P" else smooth()
    image = source.convert(mode) if mode != "PA" else source
    options = {"transparency": 255} if mode == "PA" else {}
    assert difference(written(image, "PNG", **options), image) < 4


def erased(kind: str, way: str) -> bytes:
    """A picture whose right half was erased, its colours still in the file."""
    image = smooth().convert("RGBA")
    image.paste((*ERASED, 0), (SIZE[0] // 2, 0, *SIZE))
    match way:
        case "palette":
            flat = Image.new("P", SIZE, 0)
            flat.putpalette([90, 120, 60, *ERASED])
            flat.paste(1, (SIZE[0] // 2, 0, *SIZE))
            return written(flat, kind, transparency=1)
        case "one colour":
            return written(Image.fromarray(np.asarray(image)[..., :3]), kind, transparency=ERASED)
        case "grey":
            grey = Image.new("LA", SIZE, (60, 255))
            grey.paste((255, 0), (SIZE[0] // 2, 0, *SIZE))
            return written(grey, kind)
        case "lossless":
            return written(image, kind, lossless=True, exact=True)
    return written(image, kind, **({"exact": True} if kind == "WEBP" else {}))


WAYS = [
    ("PNG", ""), ("PNG", "palette"), ("PNG", "one colour"), ("PNG", "grey"), ("WEBP", ""), ("WEBP", "lossless"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "way"), WAYS)
@pytest.mark.parametrize("mode", ["blur", "color", "image", "cutout"])
@pytest.mark.parametrize("decontaminate", [False, True])
def test_what_was_erased_never_comes_back(kind: str, way: str, mode: str, decontaminate: bool) -> None:
    frame = decoded(erased(kind, way))
    behind = frame_from_bgr(np.full((48, 64, 3), (40, 200, 40), np.uint8), NOW, 0.0)
    options = Options(mode, "#28c828", behind, decontaminate=decontaminate)
    result = open_compositor(options).compose(frame, EVERYBODY)
    hidden_part = np.asarray(pixels_of(result), int)[:, SIZE[0] // 2 + 4 :]
    for leaked in (ERASED, (255, 255, 255)):
        assert np.abs(hidden_part[..., 2::-1] - leaked).max(axis=2).min() > 50
    match mode:
        case "cutout":
            assert not hidden_part.any()
            assert pixels_of(result)[:, : SIZE[0] // 2 - 4, 3].min() == 255
        case "blur":
            assert np.abs(hidden_part - 128).max() < 60
        case _:
            assert np.abs(hidden_part - (40, 200, 40)).max() < 4


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_what_was_erased_is_never_seen_by_the_network(kind: str, way: str) -> None:
    shown = bgr_from_frame(decoded(erased(kind, way)))[:, SIZE[0] // 2 + 4 :].astype(int)
    assert np.abs(shown - 128).max() < 8


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_what_was_erased_of_a_background_is_grey(kind: str, way: str) -> None:
    frame = load_background(erased(kind, way))
    assert frame.alpha is None
    assert np.abs(bgr_from_frame(frame)[:, SIZE[0] // 2 + 4 :].astype(int) - 128).max() < 8


def test_a_cutout_of_a_half_transparent_person_stays_half_transparent() -> None:
    image = smooth().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    frame = decoded(written(image, "PNG"))
    alpha = np.asarray(image)[..., 3]
    cutout = open_compositor(Options("cutout")).compose(frame, EVERYBODY)
    matte = open_compositor(Options("alpha")).compose(frame, EVERYBODY)
    assert cutout.alpha is not None
    assert (cutout.alpha == alpha).all()
    assert np.abs((matte.y.astype(float) - 16) * 255 / 219 - alpha).max() < 2
    green = bgr_from_frame(open_compositor(Options("color", "#00ff00")).compose(frame, EVERYBODY)).astype(float)
    share = alpha[..., None] / 255
    expected = np.asarray(image)[..., 2::-1] * share + np.array((0, 255, 0)) * (1 - share)
    assert np.abs(green - expected).mean() < 4


def test_an_animation_shows_its_first_picture() -> None:
    others = [Image.new("RGB", SIZE, "red")]
    for kind in ("WEBP", "PNG"):
        assert difference(written(smooth(), kind, save_all=True, append_images=others, duration=100), smooth()) < 4


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}], ids=str)
@pytest.mark.parametrize("tail", [b"", b"\0\0\1\nPanorama" + bytes(5000) + b"SEFT", b"\xff"], ids=len)
def test_a_jpeg_without_its_end_is_taken_if_every_row_is_there(options: dict[str, Any], tail: bytes) -> None:
    whole = written(smooth((320, 240)), "JPEG", **options)
    assert (rgb_of(whole[:-2] + tail) == rgb_of(whole)).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}], ids=str)
@pytest.mark.parametrize("share", [0.4, 0.8, 0.97])
def test_a_jpeg_that_is_cut_short_is_refused(options: dict[str, Any], share: float) -> None:
    whole = written(Image.fromarray(room(320, 240)), "JPEG", **options)
    with pytest.raises(BadPicture, match="320x240 picture that is damaged or cut short"):
        decoded(whole[: int(len(whole) * share)])


@pytest.mark.parametrize(
    ("kind", "name"),
    [("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("AVIF", "AVIF"), ("ICO", "ICO"), ("JPEG2000", "JPEG 2000")],
)
def test_a_picture_of_another_format_is_refused_by_its_name(kind: str, name: str) -> None:
    data = written(smooth(), kind)
    assert picture_format(data[:32]) == name
    with pytest.raises(BadPicture, match=f"got a {name} picture, expected one of JPEG, PNG, WEBP"):
        read_size(data, 10**6, "image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (121, 81), (2049, 1025)], ids=str)
def test_pictures_of_every_size_come_out_as_they_came_in(kind: str, size: tuple[int, int]) -> None:
    """The largest one is converted in strips."""
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    image = smooth(size).convert("L").convert("RGB")
    data = written(image, kind, **options)
    assert read_size(data, 10**7, "image") == size
    assert picture_format(data[:32]) == kind
    assert difference(data, image) < 4
    assert difference(encode(decoded(data), ".png"), image) < 4
