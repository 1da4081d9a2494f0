"""Tracks: what goes beside the pictures. Sound is copied, encoded or left out; subtitles are copied or left out."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, TypeAlias

import av

Packet: TypeAlias = "av.Packet[Any]"

CARRIED = {
    "flv": {"aac", "mp3"},
    "mpegts": {"aac", "aac_latm", "ac3", "eac3", "mp2", "mp3", "opus"},
    "rtsp": {"aac", "opus", "pcm_alaw", "pcm_mulaw"},
}
"""Codecs of sound that players take, for muxers that write any, or can be asked only by connecting."""

ENCODERS = ("aac", "libmp3lame", "libopus")
"""What sound is encoded with: the first that the container takes."""

USUAL_RATE = 48_000
"""Samples per second, where an encoder does not take the source's own rate."""


class Copied:
    """Packets written as they came."""

    def __init__(self, target: av.container.OutputContainer, source: Any) -> None:
        self._stream: Any = target.add_stream_from_template(source)
        self._stream.metadata.update(source.metadata)
        self._last: int | None = None

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """`packet` for the target, each after the one before it, since a muxer refuses the file otherwise."""
        if packet.dts is None or packet.time_base is None:  # the one that ends the stream, or one of unknown time
            return
        base = self._stream.time_base or packet.time_base
        dts = round(packet.dts * packet.time_base / base)
        later = 0 if self._last is None else max(0, self._last + 1 - dts)
        pts = dts if packet.pts is None else max(dts, round(packet.pts * packet.time_base / base))
        packet.duration = round((packet.duration or 0) * packet.time_base / base)
        packet.pts, packet.dts, packet.time_base = pts + later, dts + later, base
        self._last = packet.dts
        packet.stream = self._stream
        yield packet

    def rest(self) -> Iterator[Packet]:
        """Nothing is held back."""
        return iter(())


class Encoded:
    """Sound decoded and encoded anew. `rate` and `is_mono` are the source's."""

    def __init__(
        self, target: av.container.OutputContainer, codec: str, rate: int, *, is_mono: bool, metadata: dict[str, str]
    ) -> None:
        rates = av.Codec(codec, "w").audio_rates
        rate = rate if not rates or rate in rates else USUAL_RATE
        self._encoder: Any = target.add_stream(codec, rate=rate, layout="mono" if is_mono else "stereo")
        self._encoder.metadata.update(metadata)
        self._next = 0
        self.damaged = 0

    def packets(self, packet: Packet) -> Iterator[Packet]:
        """What `packet` encodes to; a damaged one is left out."""
        decoded: Any
        try:
            decoded = packet.decode()
        except av.error.InvalidDataError:
            self.damaged += 1
            return
        yield from self.encoded(decoded)

    def encoded(self, decoded: Iterable[av.AudioFrame]) -> Iterator[Packet]:
        """What decoded sound encodes to."""
        for sound in decoded:
            # As with pictures: an encoder's times must rise.
            base = Fraction(1, sound.sample_rate)
            given = None if sound.pts is None or sound.time_base is None else round(sound.pts * sound.time_base / base)
            sound.pts = self._next if given is None else max(given, self._next)
            sound.time_base = base
            self._next = sound.pts + sound.samples
            yield from self._encoder.encode(sound)

    def rest(self) -> Iterator[Packet]:
        """What the encoder still holds."""
        yield from self._encoder.encode(None)


Track: TypeAlias = Copied | Encoded


def add_track(target: av.container.OutputContainer, source: Any) -> tuple[Track | None, str]:
    """A track of `target` for a stream of sound or subtitles, and what a user should know of it, if anything.

    The track is None where the container takes neither what came nor what it could be encoded to.
    """
    muxer = target.format.name
    name = getattr(source.codec_context, "name", None)
    if name is None:
        return None, f"{source.type} of an unknown codec is left out"
    if _can_copy(muxer, source, name):
        return Copied(target, source), ""
    codec = next((codec for codec in ENCODERS if _can_encode(muxer, source, codec)), None)
    if codec is None:
        return None, f"{source.type} in {name} is left out: {muxer} does not take it"
    return _encoded(target, source, codec), f"sound in {name} is encoded as {codec}: {muxer} does not take it as it is"


def _can_copy(muxer: str, source: Any, codec: str) -> bool:
    if muxer in CARRIED:
        return source.type == "audio" and codec in CARRIED[muxer]
    return _takes(muxer, lambda trial: Copied(trial, source))


def _can_encode(muxer: str, source: Any, codec: str) -> bool:
    if source.type != "audio" or not source.rate:
        return False
    if muxer in CARRIED:
        return codec.removeprefix("lib") in CARRIED[muxer]
    return _takes(muxer, lambda trial: _encoded(trial, source, codec))


def _encoded(target: av.container.OutputContainer, source: Any, codec: str) -> Encoded:
    is_mono = source.layout.nb_channels == 1
    return Encoded(target, codec, source.rate, is_mono=is_mono, metadata=source.metadata)


def _takes(muxer: str, add: Any) -> bool:
    """Whether a muxer writes a header with such a track: its list of codecs alone does not tell."""
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as trial:
            add(trial)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True
