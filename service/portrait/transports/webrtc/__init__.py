"""WebRTC: loopback, WHIP and WHEP over aiortc."""
