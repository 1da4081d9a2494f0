"""What a competent engineer's first version looks like: `python -m tests.benchmarks.plain`, the measure of ours.

A `grpc.aio` server with its default settings, one interpreter behind a lock, one hop to a thread for each frame; JPEG
in, 8-bit mask out, each stream with its own prior. It spares itself messages: the bytes are the call's.
"""

import argparse
import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tests.benchmarks.bare import serve

SERVICE, METHOD = "plain.Segmentation", "Stream"


class Segmentation:
    """The service."""

    def __init__(self, model: str) -> None:
        self._interpreter = Interpreter(model_path=model)
        self._runner = self._interpreter.get_signature_runner()
        inputs = self._runner.get_input_details()
        _, self._height, self._width, _ = inputs["image"]["shape"]
        self._stateful = "prior" in inputs
        self._lock = threading.Lock()

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Each picture to its mask."""
        prior = np.zeros((1, self._height, self._width, 1), np.float32)
        async for jpeg in requests:
            prior = await asyncio.to_thread(self._segment, jpeg, prior)
            yield (prior * 255).astype(np.uint8).tobytes()

    def _segment(self, jpeg: bytes, prior: Any) -> Any:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.cvtColor(cv2.resize(picture, (self._width, self._height)), cv2.COLOR_BGR2RGB)
        inputs = {"image": small[None].astype(np.float32) / 255}
        if self._stateful:
            inputs["prior"] = prior
        with self._lock:
            return self._runner(**inputs)["mask"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a TFLite file")
    segmentation = Segmentation(parser.parse_args().model)
    asyncio.run(serve(SERVICE, METHOD, segmentation.stream))


if __name__ == "__main__":
    main()
