"""What a frame costs: the CPU time of its parts on this machine, and the cores a stream keeps busy."""

from collections.abc import Mapping
from dataclasses import dataclass

from portrait.admission.quality import SLOW_RATE, Delivery, Quality

SIZES = ((640, 360), (640, 480), (1280, 720))
"""Width and height of the pictures that are measured, smallest first."""

PIXELS = tuple(width * height for width, height in SIZES)

NOMINAL_PIXELS, NOMINAL_RATE = 640 * 480, 30.0
"""What a stream is charged for until its first frames have come."""

STILL_RATE = 1.0
"""A still is charged as one picture per second."""

VIEWER, ENCODING = "viewer", "encoding"
"""The transports of two demands that are no sessions: sending what was encoded to one viewer, and encoding what a
session has made for its viewers."""

DECODERS = {"webrtc": "vp8", "grpc": "jpeg", "http": "jpeg", "camera": "vp8"}
ENCODERS = {"webrtc": "vp8", "grpc": "jpeg", "http": "png", "camera": "", VIEWER: "vp8", ENCODING: "vp8"}
"""The codecs each transport is charged for; what viewers see is decoded elsewhere, and a camera's pictures are encoded
for viewers alone."""

DECODES_ALL = ("webrtc", "camera")
"""Transports whose pictures must all be decoded, since each builds on those before it."""

WIRE = {"webrtc": 0.7, "grpc": 0.2, "http": 0.2, "camera": 0.2, VIEWER: 0.2, ENCODING: 0.0}
"""Cost of a frame in the transport itself (packets, encryption, the event loop), in inferences of the default model.
It cannot be measured without a peer; the figures are 1.3 ms and 0.4 ms beside an inference of 2 ms."""

PICTURELESS = ("mask", "alpha")
"""Modes in which gRPC sends no picture, but one number for each pixel of the model's mask."""


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
    is_still: bool = False
    """Whether it is one picture, worked on by one thread."""
    looks: int = 1
    """Inferences of a frame, at most."""
    may_be_finer: bool = False
    """Whether a finer model stands in for `model` while the box has CPU to spare."""
    encodes: bool = True
    """Whether a viewer's pictures are encoded for it alone."""


def assumed_demand(
    transport: str,
    mode: str,
    model: str,
    delivery: Delivery,
    pixels: int = NOMINAL_PIXELS,
    looks: int = 1,
    may_be_finer: bool = False,
) -> Demand:
    """What a session is charged before its first frame: `pixels` at the rate that its delivery implies."""
    is_still = delivery is Delivery.STILL
    rate = STILL_RATE if is_still else NOMINAL_RATE
    return Demand(
        transport,
        mode,
        model,
        pixels,
        rate,
        adaptive=delivery is Delivery.LIVE,
        is_still=is_still,
        looks=looks,
        may_be_finer=may_be_finer,
    )


def viewer_demand(pixels: int = NOMINAL_PIXELS, *, encodes: bool = False) -> Demand:
    """What a viewer is charged for the packets that are sent to it, and with `encodes` for an encoding of its own."""
    return Demand(VIEWER, "composite", "", pixels or NOMINAL_PIXELS, encodes=encodes)


def encoding_demand(pixels: int = NOMINAL_PIXELS) -> Demand:
    """What an encoding for viewers is charged, however many share it."""
    return Demand(ENCODING, "composite", "", pixels or NOMINAL_PIXELS)


@dataclass(frozen=True)
class CostModel:
    """Seconds of CPU by part and picture size, as `server/calibration.py` measures them.

    A part is "segment MODEL", "compose MODE", "decode CODEC" or "encode CODEC"; it has one figure for each of SIZES.
    """

    parts: Mapping[str, tuple[float, ...]]
    default: str
    """Name of the default model."""
    cheaper: Mapping[str, str]
    """Model -> a cheaper one with a mask of the same size, where there is one."""
    finer: str = ""
    """Name of the model that stands in for the default one while the box has CPU to spare; "" for none."""

    def part(self, name: str, pixels: int) -> float:
        """Seconds for a picture of `pixels`: interpolated between SIZES, in proportion above the largest."""
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

    def milliseconds(self, model: str) -> float | None:
        """Milliseconds of CPU in which this machine segments a frame of 640x480; None if it was not measured."""
        figures = self.parts.get(f"segment {model}")
        return None if figures is None else 1000 * figures[SIZES.index((640, 480))]

    def cores(self, demand: Demand, quality: Quality, finer: bool = False) -> float:
        """Cores that a stream keeps busy at a quality, or with finer models, when all that it asks for is done."""
        slowed = demand.adaptive and quality >= Quality.SLOWER
        done = min(demand.rate, SLOW_RATE) if slowed else demand.rate
        cores = self.cores_used(demand, quality, demand.rate if demand.transport in DECODES_ALL else done, done, finer)
        return min(cores, 1.0) if demand.is_still else cores

    def cores_used(self, demand: Demand, quality: Quality, decoded: float, done: float, finer: bool = False) -> float:
        """Cores that `decoded` frames per second take, of which `done` are segmented, composed and encoded as well."""
        decoder = DECODERS.get(demand.transport)
        decode = self.part(f"decode {decoder}", demand.pixels) if decoder else 0.0
        wire = WIRE[demand.transport] * self.part(f"segment {self.default}", NOMINAL_PIXELS)
        return decoded * (decode + wire) + done * self._work(demand, quality, finer)

    def _work(self, demand: Demand, quality: Quality, finer: bool) -> float:
        """Seconds that one frame takes after it has been decoded."""
        quality, pixels = quality if demand.adaptive else Quality.FULL, demand.pixels
        encode = self.part(f"encode {ENCODERS[demand.transport]}", pixels)
        if demand.transport in (VIEWER, ENCODING):
            return encode if demand.encodes else 0.0
        model = self.cheaper.get(demand.model, demand.model) if quality >= Quality.SMALLER else demand.model
        if finer and demand.may_be_finer and self.finer:
            model = self.finer
        segment = self.part(f"segment {model}", pixels)
        segment *= demand.looks
        if quality >= Quality.ALTERNATE:
            segment /= 2
        if demand.transport == "grpc" and demand.mode in PICTURELESS:
            return segment
        return segment + self.part(f"compose {demand.mode}", pixels) + encode
