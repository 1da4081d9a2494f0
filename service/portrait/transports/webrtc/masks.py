"""The loopback without a video down: camera up, masks on a data channel."""

from collections.abc import Coroutine
from typing import Any

from aiortc import RTCDataChannel

from portrait.errors import BadOffer
from portrait.sessions.newest_slot import Closed
from portrait.sessions.session import Session
from portrait.transports.webrtc.aiortc_patches.video_decoders import Coded
from portrait.transports.webrtc.camera import Uplink
from portrait.transports.webrtc.connection import open_ways

LABEL = "masks"
"""Of the channel a client opens; `{ordered: false, maxRetransmits: 0}` is what suits it."""

FULL = 8192
"""Bytes waiting for the network from which on masks are given up: two of the largest."""


class MaskSender(Uplink[bytes]):
    """A connection whose camera goes up and whose masks come down on the channel the client has opened."""

    def __init__(self, session: Session[Coded, bytes], idle_seconds: float) -> None:
        super().__init__(session, idle_seconds)
        self._channel: RTCDataChannel | None = None

    def direct(self, transceivers: list[Any]) -> None:
        """Take the first video that is sent, and decline everything else."""
        for transceiver in transceivers:
            if transceiver.kind == "video" and self.camera is None and "recv" in open_ways(transceiver):
                self.take_camera(transceiver)
                transceiver.direction = "recvonly"
            else:
                transceiver.direction = "inactive"
        if self.camera is None:
            raise BadOffer("sdp", "the offer sends no video; expected one video section that is sendonly")
        if self.connection.pc.sctp is None:
            raise BadOffer("sdp", f"the offer has no data channel; expected one labelled {LABEL!r} for result=data")

    def take_channel(self, channel: RTCDataChannel) -> None:
        """Send masks on the channel that is labelled for them."""
        if channel.label == LABEL and self._channel is None:
            self._channel = channel
        else:
            super().take_channel(channel)

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        """Carry frames up and masks down, until the session is ended or the other side goes away."""
        await super().run(self._send(), *work)

    async def _send(self) -> None:
        """Every newest frame through the session and its mask to the client, as long as there is room for it."""
        while True:
            try:
                arrived = await self.newest()
            except Closed:
                return
            channel = self._channel
            if channel is None or channel.readyState != "open":
                await self.skip(arrived, "no_channel")
            elif channel.bufferedAmount > FULL:
                await self.skip(arrived, "slow_network")
            elif (message := await self.result(arrived)) is not None and channel.readyState == "open":
                channel.send(message)
