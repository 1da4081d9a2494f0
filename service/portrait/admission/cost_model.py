"""What a frame costs: the CPU time of its parts on this machine, and what follows for a stream."""

from collections.abc import Mapping
from dataclasses import dataclass

from portrait.admission.quality import SLOW_RATE, Quality

SIZES = ((640, 360), (640, 480), (1280, 720))
"""Width and height of the pictures that are measured, the smallest first."""

PIXELS = tuple(width * height for width, height in SIZES)

NOMINAL_PIXELS, NOMINAL_RATE = 640 * 480, 30.0
"""What a stream is taken for until its first frames have come."""

STILL_RATE = 1.0
"""A session of one picture lasts less than a second; it is taken for a second of one picture."""

CODECS = {"webrtc": "vp8", "grpc": "jpeg", "http": "jpeg"}
"""What a transport's pictures are taken for."""

WIRE = {"webrtc": 0.7, "grpc": 0.2, "http": 0.2}
"""What a transport itself takes for a frame, in inferences of the default network: packets, encryption, the event loop.
Cannot be measured without a peer; the figures are 1.3 ms and 0.4 ms beside an inference of 2 ms."""

PICTURELESS = ("mask", "alpha")
"""Modes of which gRPC sends no picture, but one number per pixel of the network's."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stream asks for."""

    transport: str
    mode: str
    model: str
    pixels: int = NOMINAL_PIXELS
    rate: float = NOMINAL_RATE
    """Frames per second that arrive."""
    adaptive: bool = True
    """Whether its quality may go down."""


@dataclass(frozen=True)
class CostModel:
    """Seconds of CPU by part and size, as `server/calibration.py` measures them.

    A part is "segment MODEL", "compose MODE", "decode CODEC" or "encode CODEC"; its figures go with SIZES.
    """

    parts: Mapping[str, tuple[float, ...]]
    default: str
    """Name of the default model."""
    smaller: Mapping[str, str]
    """Model -> a cheaper one with a mask of the same size, where there is one."""

    def part(self, name: str, pixels: int) -> float:
        """Seconds for a picture of so many pixels: between the sizes on a straight line, beyond in proportion."""
        figures = self.parts.get(name)
        if figures is None:
            return 0.0
        if pixels <= PIXELS[0]:
            return figures[0]
        for i in range(len(PIXELS) - 1):
            if pixels <= PIXELS[i + 1]:
                share = (pixels - PIXELS[i]) / (PIXELS[i + 1] - PIXELS[i])
                return figures[i] + share * (figures[i + 1] - figures[i])
        return figures[-1] * pixels / PIXELS[-1]

    def cores(self, demand: Demand, quality: Quality) -> float:
        """How many cores a stream keeps busy at a quality."""
        quality = quality if demand.adaptive else Quality.FULL
        codec, pixels = CODECS[demand.transport], demand.pixels
        model = self.smaller.get(demand.model, demand.model) if quality >= Quality.SMALLER else demand.model
        segment = self.part(f"segment {model}", pixels)
        if quality >= Quality.ALTERNATE:
            segment /= 2
        work = segment
        if demand.transport == "webrtc" or demand.mode not in PICTURELESS:
            work += self.part(f"compose {demand.mode}", pixels) + self.part(f"encode {codec}", pixels)
        arrival = self.part(f"decode {codec}", pixels) + WIRE[demand.transport] * self.part(
            f"segment {self.default}", NOMINAL_PIXELS
        )
        taken = min(demand.rate, SLOW_RATE) if quality >= Quality.SLOWER else demand.rate
        if demand.transport != "webrtc":  # WebRTC decodes what arrives; the others only what is taken
            return arrival * taken + work * taken
        return arrival * demand.rate + work * taken
