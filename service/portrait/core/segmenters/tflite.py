"""TFLite files, executed by LiteRT or by the older tflite-runtime, which has the same interface."""

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.errors import BadModel, SegmentationFailed
from portrait.image.convert import recolored
from portrait.image.frame import CAMERA, Frame, Mask, Plane, split_i420

# Neither package ships type information.
Interpreter: TypeAlias = Any

RUNTIMES = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
"""The modules that hold `Interpreter`, by the runtime's name, in the order in which they are tried."""

FILE_IDENTIFIER = b"TFL3"

HALF_PRECISION, FULL_PRECISION = b"fp16accfp16", b"fp32accfp32"
"""What a file says of the precision that is enough for it. Where it is the first, XNNPACK computes in float16 on ARM
processors that can. In LiteRT 2 the masks are as good; in tflite-runtime 2.14 they lose 1.7 of boundary F."""

CONTRACT = "inputs image (1,H,W,3) and optionally prior (1,H,W,1), output mask (1,H,W,1), all float32, H and W even"
CLASSES = "an output of several classes needs --model-person, the numbers of those that are the person"


def find_runtime(wanted: str = "auto") -> str:
    """The name of the runtime to use: `wanted`, or the first that can be imported.

    Raises:
        BadModel: it, or none of them, is installed.
    """
    candidates = list(RUNTIMES) if wanted == "auto" else [wanted]
    for name in candidates:
        try:
            importlib.import_module(RUNTIMES[name])
        except ImportError:
            continue
        return name
    raise BadModel(f"no TFLite runtime: tried {', '.join(candidates)}; install ai-edge-litert or tflite-runtime")


MOST_CLASSES = 256
"""An output has fewer classes than this."""


@dataclass(frozen=True)
class Reading:
    """What the numbers in a file's tensors mean. The default is the contract; files made elsewhere need others."""

    low: float = 0.0
    """The input that stands for black; white is 1."""
    person: tuple[int, ...] = ()
    """The classes of the output that belong to the person; () for an output of one channel, which is the person."""
    logits: bool = False
    """Whether the output is taken before the softmax over the classes, or before the sigmoid of a single channel."""

    def probability(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H,W) of an output (H,W,channels); in 0..1 if the network works."""
        if not self.logits:
            return output[..., 0] if not self.person else output[..., self.person].sum(-1, dtype=np.float32)
        if not self.person:
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * output[..., 0]), np.float32)  # the sigmoid, without overflow
        likely = np.exp(output - output.max(-1, keepdims=True))
        return np.asarray(likely[..., self.person].sum(-1) / likely.sum(-1), np.float32)


OWN = Reading()
"""Of files of the contract."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """The indices of the contract's tensors in one file, and the size they share."""

    image: int
    prior: int | None
    mask: int
    height: int
    width: int


class TFLiteModel:
    """A TFLite file of the contract, or one that `reading` explains, checked when it is loaded.

    Raises:
        BadModel: the file is missing, is not TFLite, or has other tensors; says which.
    """

    def __init__(self, path: Path, runtime: str = "auto", reading: Reading = OWN) -> None:
        self.name = path.stem
        self._reading = reading
        self.path = str(path)
        self.runtime = find_runtime(runtime)
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise BadModel(f"{path}: cannot be read: {error.strerror}") from error
        if self._data[4:8] != FILE_IDENTIFIER:
            raise BadModel(f"{path}: no TFLite file: bytes 4..8 are {self._data[4:8]!r}, expected {FILE_IDENTIFIER!r}")
        if self.runtime == "tflite-runtime":
            self._data = self._data.replace(HALF_PRECISION, FULL_PRECISION)
        self._tensors = _find_tensors(self._interpreter(), path, reading)

    @property
    def width(self) -> int:
        """Pixels per row of the network's input and mask."""
        return self._tensors.width

    @property
    def height(self) -> int:
        """Rows of the network's input and mask."""
        return self._tensors.height

    @property
    def stateful(self) -> bool:
        """Whether the network takes a prior mask."""
        return self._tensors.prior is not None

    def open(self) -> "TFLiteSegmenter":
        """A segmenter with a prior of its own. Call it on the thread that will use it."""
        return TFLiteSegmenter(self._interpreter(), self._tensors, self._reading)

    def _interpreter(self) -> Interpreter:
        module = importlib.import_module(RUNTIMES[self.runtime])
        try:
            interpreter = module.Interpreter(model_content=self._data, num_threads=1)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BadModel(f"{self.path}: {self.runtime} cannot load it: {error}") from error
        return interpreter


class TFLiteSegmenter:
    """One interpreter with one thread, its prior, and the buffers it reuses from frame to frame."""

    def __init__(self, interpreter: Interpreter, tensors: Tensors, reading: Reading = OWN) -> None:
        self._interpreter, self._tensors, self._reading = interpreter, tensors, reading
        height, width = tensors.height, tensors.width
        self._i420: Plane = np.empty(height * width * 3 // 2, np.uint8)
        self._planes = split_i420(self._i420, width, height)
        self._rgb: Plane = np.empty((height, width, 3), np.uint8)
        self.reset()

    def segment(self, frame: Frame) -> Mask:
        """The mask of `frame`, which becomes the prior of the next one.

        Raises:
            SegmentationFailed: the network stopped or gave values that are no probabilities.
        """
        try:
            self._load(frame)
            self._interpreter.invoke()
            values = self._take()
        except (RuntimeError, ValueError) as error:
            raise SegmentationFailed(f"the interpreter stopped: {error}") from error
        if values is None:
            raise SegmentationFailed("the network gave values outside 0..1")
        return Mask(values)

    def reset(self) -> None:
        """Forget the prior: the next frame is a first frame."""
        if self._tensors.prior is not None:
            self._view(self._tensors.prior).fill(0)

    def resume(self, prior: Mask) -> None:
        """Take `prior`, of the model's size, as the mask before the next frame. Without effect on a stateless model."""
        if self._tensors.prior is not None:
            np.multiply(prior.values, np.float32(1 / 255), out=self._view(self._tensors.prior)[0, ..., 0])

    def close(self) -> None:
        """Free the interpreter's memory. Idempotent; nothing else may be called afterwards."""
        self._interpreter = None

    def _view(self, tensor: int) -> NDArray[np.float32]:
        """A view of the interpreter's own memory, so that nothing is copied.

        It must be released before `invoke`, which refuses to run otherwise. So no exception is raised while a view is
        held: the traceback would keep it alive.
        """
        view: NDArray[np.float32] = self._interpreter.tensor(tensor)()
        return view

    def _load(self, frame: Frame) -> None:
        """Resize and convert `frame` into the network's input.

        The planes are resized before they are converted, in a quarter of the time of converting the full frame.
        """
        height, width = self._tensors.height, self._tensors.width
        luma = frame.y if frame.small is None or frame.small.shape != (height, width) else frame.small
        for source, target in zip((luma, frame.u, frame.v), self._planes, strict=True):
            cv2.resize(source, (target.shape[1], target.shape[0]), dst=target, interpolation=cv2.INTER_LINEAR)
        if frame.colors != CAMERA:
            small = recolored(frame.with_planes(*self._planes), CAMERA)
            for plane, target in zip((small.y, small.u, small.v), self._planes, strict=True):
                np.copyto(target, plane)
        cv2.cvtColor(self._i420.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_I420, dst=self._rgb)
        image, low = self._view(self._tensors.image)[0], self._reading.low
        np.multiply(self._rgb, np.float32((1 - low) / 255), out=image)
        if low:
            np.add(image, np.float32(low), out=image)

    def _take(self) -> Plane | None:
        """The mask, which becomes the next prior. That stays in its input tensor: the runtime never overwrites inputs.

        None, and no new prior, if the values are not probabilities.
        """
        probability = self._reading.probability(self._view(self._tensors.mask)[0])
        # NaN fails both comparisons, since NumPy's min and max return it. The margin is for rounding.
        if not (probability.min() >= -1e-3 and probability.max() <= 1.001):
            return None
        if self._tensors.prior is not None:
            np.copyto(self._view(self._tensors.prior)[0, ..., 0], probability)
        return np.asarray(cv2.convertScaleAbs(probability, alpha=255.0), np.uint8)


def _find_tensors(interpreter: Interpreter, path: Path, reading: Reading) -> Tensors:
    """Match the file's tensors to the contract: by name, then by shape, never by index."""
    inputs, outputs = _named(interpreter)
    classes = range(max(reading.person) + 1, MOST_CLASSES) if reading.person else range(1, 2)
    image, prior, mask = _pick(inputs, "image", (3,)), _pick(inputs, "prior", (1,)), _pick(outputs, "mask", classes)
    if image is None or mask is None or len(inputs) != (1 if prior is None else 2) or len(outputs) != 1:
        raise BadModel(f"{path}: has {_describe(inputs)} -> {_describe(outputs)}; expected {CONTRACT}; {CLASSES}")
    _, height, width, _ = (int(size) for size in image["shape"])
    sizes = {tuple(int(size) for size in tensor["shape"][1:3]) for tensor in (image, prior, mask) if tensor is not None}
    if len(sizes) != 1 or height % 2 or width % 2:
        raise BadModel(f"{path}: has {_describe(inputs)} -> {_describe(outputs)}; expected {CONTRACT}")
    return Tensors(image["index"], None if prior is None else prior["index"], mask["index"], height, width)


def _named(interpreter: Interpreter) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs by name: the signature's where the file has one, else the tensors' own."""
    if interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    return {tensor["name"]: tensor for tensor in inputs}, {tensor["name"]: tensor for tensor in outputs}


def _pick(tensors: dict[str, Any], name: str, channels: Collection[int]) -> Any | None:
    fitting = {
        key: tensor
        for key, tensor in tensors.items()
        if len(tensor["shape"]) == 4
        and tensor["shape"][0] == 1
        and tensor["shape"][3] in channels
        and tensor["dtype"] == np.float32
    }
    if name in fitting:
        return fitting[name]
    return next(iter(fitting.values()), None)


def _describe(tensors: dict[str, Any]) -> str:
    shapes = (f"{name} {tuple(map(int, t['shape']))} {np.dtype(t['dtype']).name}" for name, t in tensors.items())
    return ", ".join(shapes) or "no tensors"
