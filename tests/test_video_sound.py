"""`portrait process`: sound is copied, encoded or left out, and never costs the picture."""

import json
import random
from pathlib import Path

import av
import pytest

from portrait.cli import main
from tests.films import ffmpeg, needs_ffmpeg, read_video, times_of

pytestmark = needs_ffmpeg

PICTURE = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=30:duration=0.5"]
H264, MPEG4 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"], ["-c:v", "mpeg4"]


def tone(rate: int = 8000, channels: int = 1) -> list[str]:
    return ["-f", "lavfi", "-t", "0.5", "-i", f"sine=440:r={rate}", "-ac", str(channels)]


def sounds(path: Path) -> list[tuple[str, int]]:
    """Codec and channels of each stream of sound."""
    with av.open(str(path)) as container:
        return [(stream.codec_context.name, stream.channels) for stream in container.streams.audio]


def lengths(path: Path) -> list[float]:
    """Seconds of each stream of sound, decoded."""
    with av.open(str(path)) as container:
        found = []
        for stream in container.streams.audio:
            container.seek(0)
            found.append(sum(frame.samples / frame.sample_rate for frame in container.decode(stream)))
        return found


@pytest.mark.parametrize(
    ("name", "codecs", "target", "expected"),
    [
        ("camera.mkv", [*H264, "-c:a", "pcm_alaw"], "out.mkv", "aac"),
        ("camera.mkv", [*H264, "-c:a", "pcm_mulaw"], "out.mp4", "aac"),
        ("camera.mov", [*H264, "-c:a", "pcm_alaw"], "out.mov", "pcm_alaw"),
        ("old.avi", [*MPEG4, "-c:a", "adpcm_ms"], "out.mp4", "aac"),
        ("old.avi", [*MPEG4, "-c:a", "pcm_u8"], "out.mp4", "aac"),
        ("old.mov", [*MPEG4, "-c:a", "adpcm_ima_qt"], "out.mp4", "aac"),
        ("windows.wmv", ["-c:v", "wmv2", "-c:a", "wmav2"], "out.mp4", "aac"),
        ("windows.wmv", ["-c:v", "wmv2", "-c:a", "wmav2"], "out.ts", "aac"),
        ("studio.mkv", [*H264, "-c:a", "flac"], "out.ts", "aac"),
        ("studio.mkv", [*H264, "-c:a", "pcm_s16le"], "out.mkv", "pcm_s16le"),
        ("web.mkv", [*H264, "-c:a", "libopus"], "out.mp4", "opus"),
        ("tv.ts", [*H264, "-c:a", "aac"], "out.mp4", "aac"),
        ("tv.ts", [*H264, "-c:a", "mp2"], "out.mkv", "mp2"),
    ],
)
def test_sound_is_copied_where_the_container_takes_it_and_encoded_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, codecs: list[str], target: str, expected: str
) -> None:
    ffmpeg(*PICTURE, *tone(48_000 if "libopus" in codecs or name == "tv.ts" else 8000), *codecs, tmp_path / name)
    assert main(["process", str(tmp_path / name), str(tmp_path / target), "--json"]) == 0
    before, after = sounds(tmp_path / name), sounds(tmp_path / target)
    assert [codec for codec, _ in after] == [expected]
    assert lengths(tmp_path / target) == pytest.approx(lengths(tmp_path / name), abs=0.2)
    assert len(times_of(tmp_path / target)) == 15
    told = json.loads(capsys.readouterr().out).get("notes", [])
    assert bool(told) == ((before != after and expected == "aac") or "vorbis" in str(before)), told


def test_sound_that_no_encoder_can_read_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its codec's number is of none that is known."""
    ffmpeg(*PICTURE, *tone(), *MPEG4, "-c:a", "pcm_u8", tmp_path / "in.avi")
    data = bytearray((tmp_path / "in.avi").read_bytes())
    header = data.index(b"strf", data.index(b"auds")) + 8
    data[header : header + 2] = b"\xfe\x7f"
    (tmp_path / "in.avi").write_bytes(data)
    assert main(["process", str(tmp_path / "in.avi"), str(tmp_path / "out.mp4"), "--json"]) == 0
    said = capsys.readouterr()
    assert "left out" in said.err
    assert "left out" in json.loads(said.out)["notes"][0]
    assert sounds(tmp_path / "out.mp4") == []
    assert len(read_video(tmp_path / "out.mp4")) == 15


def test_several_languages_stay_several(tmp_path: Path) -> None:
    first, second = tone(48_000), tone(48_000)
    ffmpeg(
        *PICTURE, *first[:-2], *second[:-2], "-map", 0, "-map", 1, "-map", 2, *H264, "-c:a:0", "aac", "-c:a:1",
        "pcm_mulaw", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra", tmp_path / "in.mkv",
    )  # fmt: skip
    assert main(["process", str(tmp_path / "in.mkv"), str(tmp_path / "out.mp4")]) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.language for stream in container.streams.audio] == ["eng", "fra"]


def test_damaged_sound_costs_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ffmpeg(*PICTURE, *tone(44_100), "-c:v", "wmv2", "-c:a", "wmav2", tmp_path / "in.wmv")
    with av.open(str(tmp_path / "in.wmv")) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data, noise = (tmp_path / "in.wmv").read_bytes(), random.Random(1)
    for packet in packets[2:4]:
        assert packet[:200] in data
        data = data.replace(packet[:200], noise.randbytes(200))
    (tmp_path / "in.wmv").write_bytes(data)
    assert main(["process", str(tmp_path / "in.wmv"), str(tmp_path / "out.mp4")]) == 0
    assert len(read_video(tmp_path / "out.mp4")) == 15
    assert sounds(tmp_path / "out.mp4") == [("aac", 1)]
    capsys.readouterr()


@pytest.mark.parametrize(("name", "kept"), [("out.mkv", ["srt"]), ("out.mp4", [])])
def test_subtitles_are_copied_or_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kept: list[str]
) -> None:
    (tmp_path / "in.srt").write_text("1\n00:00:00,000 --> 00:00:00,400\nHello\n")
    ffmpeg(*PICTURE, "-i", tmp_path / "in.srt", *H264, "-c:s", "srt", tmp_path / "in.mkv")
    assert main(["process", str(tmp_path / "in.mkv"), str(tmp_path / name), "--json"]) == 0
    with av.open(str(tmp_path / name)) as container:
        assert [stream.codec_context.name for stream in container.streams.subtitles] == kept
    told = json.loads(capsys.readouterr().out).get("notes", [])
    assert bool(kept) != bool(told), told
