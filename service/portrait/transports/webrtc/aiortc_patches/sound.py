"""Sound passed on undecoded, from a publisher's receiver into a stream's Sound, and from there to viewers."""

from typing import Any

from aiortc import MediaStreamTrack
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket, RtpPacket

from portrait.sessions.newest_slot import Closed
from portrait.sessions.sound import Listener, SenderClock, Sound, SoundPacket
from portrait.transports.webrtc.aiortc_patches.receiver import NewestSources

MOST_BYTES = 1200
"""Of a payload, as of a picture's."""


class SoundSink:
    """Takes a receiver's packets as they arrive. Stands for its jitter buffer and for its queue to a decoder.

    Every viewer has a jitter buffer of its own; one here would delay the sound by 80 ms. A packet that comes after a
    later one is dropped, since viewers get new sequence numbers.
    """

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        self._newest: int | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Hand a packet on at once, where aiortc would put it in order."""
        data: bytes = packet._data  # type: ignore[attr-defined]  # aiortc adds it: the payload
        return False, JitterFrame(data, packet.timestamp) if data else None

    def put(self, item: tuple[Any, JitterFrame] | None) -> None:
        """Pass a packet on to the viewers; None says that no more will come."""
        if item is None:
            return
        frame = item[1]
        if self._newest is None or frame.timestamp > self._newest:
            self._newest = frame.timestamp
            self._sound.play(SoundPacket(frame.data, frame.timestamp))


def receive_sound(transceiver: Any, sound: Sound, codec: Any) -> None:
    """Pass on what this section's receiver gets, which is in `codec`, before its first packet arrives."""
    receiver = transceiver.receiver
    sink = SoundSink(sound)
    receiver._RTCRtpReceiver__jitter_buffer = receiver._RTCRtpReceiver__decoder_queue = sink
    receiver._RTCRtpReceiver__remote_streams = NewestSources()
    transceiver._codecs = [codec]
    sound.codec = codec.mimeType.lower()


def note_reports(transceiver: Any, sound: Sound) -> None:
    """Note the sender reports that this section's receiver gets."""
    receiver, kind = transceiver.receiver, transceiver.kind
    rate, handle = transceiver._codecs[0].clockRate, receiver._handle_rtcp_packet

    async def noted(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            sent = packet.sender_info
            sound.clocks[kind] = SenderClock(sent.ntp_timestamp, sent.rtp_timestamp, rate)
        await handle(packet)

    receiver._handle_rtcp_packet = noted


class SoundTrack(MediaStreamTrack):
    """A stream's sound for one viewer."""

    kind = "audio"

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    async def recv(self) -> SoundPacket:  # type: ignore[override]  # Packer packs it
        """The next packet.

        Raises:
            MediaStreamError: the viewer is being closed.
        """
        try:
            return await self._listener.get()
        except Closed:
            self.stop()
            raise MediaStreamError from None


class Packer:
    """Stands for a sender's encoder: what comes is encoded already."""

    def pack(self, packet: SoundPacket) -> tuple[list[bytes], int]:
        """RTP payloads and timestamp; nothing of a packet that is too large for one of RTP."""
        return [packet.payload] if len(packet.payload) <= MOST_BYTES else [], packet.timestamp


def send_sound(transceiver: Any, listener: Listener, codec: Any) -> None:
    """Send a stream's sound, which is in `codec`, from this section."""
    transceiver._codecs = [codec]
    transceiver.sender.replaceTrack(SoundTrack(listener))
    transceiver.sender._RTCRtpSender__encoder = Packer()


def report_in_step(transceiver: Any, sound: Sound) -> None:
    """Give this section's sender reports the times that the publisher's own reports give the same media.

    aiortc reports when it has sent a packet. A picture is sent some ten milliseconds after the sound of its moment,
    for the time it was worked on, and would be shown as much too late.
    """
    sender, kind = transceiver.sender, transceiver.kind
    send = sender._send_rtcp

    async def sent(packets: list[AnyRtcpPacket]) -> None:
        clock = sound.clock(kind)
        for packet in packets if clock is not None else ():
            if isinstance(packet, RtcpSrPacket):
                info = packet.sender_info
                info.ntp_timestamp = clock.ntp_of(info.rtp_timestamp)  # type: ignore[union-attr]
        await send(packets)

    sender._send_rtcp = sent


def codec_of(transceiver: Any, name: str) -> Any:
    """The section's negotiated codec of a MIME type, in lower case; None: it has none."""
    return next((codec for codec in transceiver._codecs if codec.mimeType.lower() == name), None)
