"""Views of panoramas."""

import base64

import av
import cv2
import numpy as np
import pytest

from training import data, panoramas


@pytest.fixture
def panorama():
    """Dark but for a lamp ahead, a red one a quarter turn to the right, and a green one straight above that."""
    picture = np.full((256, 512, 3), 0.05, np.float32)
    picture[120:136, 248:264] = 1.0
    picture[120:136, 376:392] = (1.0, 0.05, 0.05)
    picture[56:72, 376:392] = (0.05, 1.0, 0.05)
    return picture


def middle(seen):
    return seen[seen.shape[0] // 2, seen.shape[1] // 2]


def test_a_view_shows_what_lies_in_its_direction(panorama):
    assert middle(panoramas.view(panorama, 0, 0, 80)) == pytest.approx([1.0, 1.0, 1.0])
    assert middle(panoramas.view(panorama, 90, 0, 80)) == pytest.approx([1.0, 0.05, 0.05])
    assert middle(panoramas.view(panorama, 90, -45, 80)) == pytest.approx([0.05, 1.0, 0.05])
    assert middle(panoramas.view(panorama, 45, 0, 80)) == pytest.approx([0.05, 0.05, 0.05])


def test_a_view_of_ninety_degrees_ends_halfway_to_the_next_lamp(panorama):
    seen = panoramas.view(panorama, 45, 0, 90)
    rim = seen[seen.shape[0] // 2, [0, -1]]
    assert rim == pytest.approx(np.float32([[1.0, 1.0, 1.0], [1.0, 0.05, 0.05]]))


def test_views_go_all_around_in_different_light(panorama):
    seen = list(panoramas.views(panorama, 8, np.random.default_rng(0)))
    assert len(seen) == 8
    assert {picture.shape for picture in seen} == {(240, 320, 3)}
    red = [np.any(picture[..., 0].astype(int) > picture[..., 1].astype(int) + 60) for picture in seen]
    assert any(red)
    assert not all(red)
    assert len({int(np.median(picture)) for picture in seen}) > 4


def exr(path, picture):
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("exr", rate=1)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "gbrpf32le"
        frame = av.VideoFrame(picture.shape[1], picture.shape[0], "gbrpf32le")
        for plane, channel in zip(frame.planes, (1, 2, 0), strict=True):
            row = np.zeros((picture.shape[0], plane.line_size // 4), np.float32)
            row[:, : picture.shape[1]] = picture[..., channel]
            plane.update(row.tobytes())
        container.mux([*stream.encode(frame), *stream.encode(None)])


def test_every_kind_of_file_gives_the_same_panorama(panorama, tmp_path):
    exr(tmp_path / "a.exr", panorama)
    packed = base64.b64encode((tmp_path / "a.exr").read_bytes()).decode()
    (tmp_path / "a.exr.js").write_text(f"export default 'data:application/exr;base64,{packed}'\n")
    cv2.imwrite(str(tmp_path / "a.hdr"), cv2.cvtColor(panorama, cv2.COLOR_RGB2BGR))
    for name in ("a.exr", "a.exr.js", "a.hdr"):
        assert np.abs(panoramas.read(tmp_path / name) - panorama).max() < 0.01, name


def test_a_picture_that_is_no_panorama_is_refused_with_its_size(panorama, tmp_path):
    cv2.imwrite(str(tmp_path / "a.hdr"), panorama[:, :100])
    with pytest.raises(ValueError, match="got a picture of 100x256"):
        panoramas.read(tmp_path / "a.hdr")
    (tmp_path / "a.js").write_text("export default {}")
    with pytest.raises(ValueError, match="got no picture"):
        panoramas.read(tmp_path / "a.js")


def test_the_command_writes_pictures_that_training_reads(panorama, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.hdr"), panorama)
    words = ["panoramas", str(tmp_path / "a.hdr"), "--out", str(tmp_path / "rooms"), "--views", "3"]
    monkeypatch.setattr("sys.argv", words)
    panoramas.main()
    assert len(data.read_rooms(tmp_path / "rooms")) == 3
    with pytest.raises(FileNotFoundError, match=r"no \.jpg file"):
        data.read_rooms(tmp_path)
