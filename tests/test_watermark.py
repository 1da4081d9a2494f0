"""The search for the watermark finds it wherever somebody could see it, and nowhere else."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor

from portrait.core.compositors import Options, open_compositor
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from portrait.transports.webrtc.aiortc_patches.video_codecs import LiveVp8Encoder
from tests.faults.ways import SIZES
from tests.people import Array, room
from tests.watermark import READABLE, Scene, Search, planes_of

CLEAN = READABLE / 2
"""What is clean stays below."""

Planes = tuple[Array, Array, Array]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(*request.param)


def as_frame(pixels: Array) -> Frame:
    return frame_from_bgr(pixels, Timestamp(0, Fraction(1)), 0.0)


def planes(frame: Frame) -> Planes:
    return frame.y, frame.u, frame.v


def grey(scene: Scene) -> Planes:
    y, u, v = (np.full_like(plane, 128) for plane in planes(as_frame(scene.image)))
    return y, u, v


def seen(scene: Scene, shown: Planes) -> float:
    return Search(scene).strongest(shown)


def test_the_camera_as_it_is_shows_it(scene: Scene) -> None:
    assert seen(scene, planes(as_frame(scene.image))) > 0.95


@pytest.mark.parametrize("quality", [30, 80])
def test_jpeg_keeps_it(scene: Scene, quality: int) -> None:
    data = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert seen(scene, planes_of(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8))) > 0.9


def test_vp8_keeps_it(scene: Scene) -> None:
    """The service's own encoder, at the least it ever sends."""
    encoder, decoder = LiveVp8Encoder(), av.CodecContext.create("vp8", "r")
    encoder.target_bitrate = 500_000
    shares = []
    for number in range(30):
        frame = av.VideoFrame.from_ndarray(scene.image, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = 3000 * number, Fraction(1, 90_000)
        payloads, _ = encoder.encode(frame)
        pictures = [decoded.to_ndarray(format="bgr24") for decoded in decoder.decode(av.Packet(join(payloads)))]
        shares += [seen(scene, planes_of(np.asarray(picture, np.uint8))) for picture in pictures]
    assert len(shares) > 20
    assert min(shares) > 0.5


def join(payloads: list[bytes]) -> bytes:
    """A VP8 frame of its RTP payloads: without the descriptors (RFC 7741 section 4.2, as aiortc writes them)."""
    return b"".join(VpxPayloadDescriptor.parse(payload)[1] for payload in payloads)


@pytest.mark.parametrize("plane", [0, 1, 2], ids=["Y", "U", "V"])
def test_one_plane_alone_is_enough(scene: Scene, plane: int) -> None:
    shown = list(grey(scene))
    shown[plane] = planes(as_frame(scene.image))[plane]
    assert seen(scene, (shown[0], shown[1], shown[2])) > 0.9


def test_a_room_that_shines_through_is_seen_from_a_tenth_on(scene: Scene) -> None:
    camera = planes(as_frame(scene.image))

    def blended(share: float) -> Planes:
        y, u, v = (np.uint8(128 * (1 - share) + share * plane.astype(np.float32)) for plane in camera)
        return y, u, v

    assert seen(scene, blended(0.12)) > READABLE
    assert seen(scene, blended(0.03)) < READABLE


def test_a_patch_is_seen_from_ten_pixels_on(scene: Scene) -> None:
    camera = planes(as_frame(scene.image))[0]
    for side, expected in ((12, True), (6, False)):
        shown = grey(scene)
        shown[0][17 : 17 + side, 19 : 19 + side] = camera[17 : 17 + side, 19 : 19 + side]
        assert (seen(scene, shown) > READABLE) is expected


@pytest.mark.parametrize("mode", ["blur", "color", "image"])
@pytest.mark.parametrize("somebody", [True, False])
def test_what_is_composed_is_clean(scene: Scene, mode: str, somebody: bool) -> None:
    behind = as_frame(room(640, 480)) if mode == "image" else None
    mask = Mask(np.asarray(cv2.resize(scene.mask, (224, 224)), np.uint8)) if somebody else Mask.empty(224, 224)
    options = Options(mode, background=behind)
    composed = open_compositor(options).compose(as_frame(scene.image), mask)
    assert seen(scene, planes(composed)) < CLEAN


def test_a_blur_that_is_too_weak_is_seen(scene: Scene) -> None:
    weak = cv2.GaussianBlur(scene.image, (0, 0), 1.5)
    assert seen(scene, planes_of(np.asarray(weak, np.uint8))) > READABLE


def test_a_picture_with_no_place_to_search_is_refused() -> None:
    with pytest.raises(AssertionError, match="too small"):
        Search(Scene(96, 64))
