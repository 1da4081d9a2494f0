"""The same network in NVIDIA Triton, by way of PyTriton: `.venv-pytriton/bin/python triton_server.py MODEL.tflite`.

Run by an interpreter of its own (`make .venv-pytriton/ready`). Triton keeps nothing between calls: the prior comes with
each, as its examples of stateless models have it.
"""

import argparse
import json
import signal
import socket
import sys
import threading
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def free_port() -> int:
    """A TCP port nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def main(model: str) -> None:
    """Serve until the process is ended."""
    runner = Interpreter(model_path=model).get_signature_runner()
    _, height, width, _ = map(int, runner.get_input_details()["image"]["shape"])
    lock = threading.Lock()

    def segment(requests: Any) -> list[dict[str, Any]]:
        results = []
        for request in requests:
            jpeg, prior = request["image"].reshape(-1)[0], request["prior"]
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            small = cv2.cvtColor(cv2.resize(picture, (width, height)), cv2.COLOR_BGR2RGB)
            with lock:
                mask = runner(image=small[None].astype(np.float32) / 255, prior=prior[None].astype(np.float32) / 255)
            results.append({"mask": (mask["mask"] * 255).astype(np.uint8)})
        return results

    port = free_port()
    with Triton(config=TritonConfig(http_port=free_port(), grpc_port=port, metrics_port=free_port())) as triton:
        triton.bind(
            model_name="portrait",
            infer_func=segment,
            inputs=[
                Tensor(name="image", dtype=np.bytes_, shape=(1,)),
                Tensor(name="prior", dtype=np.uint8, shape=(height, width, 1)),
            ],
            outputs=[Tensor(name="mask", dtype=np.uint8, shape=(1, height, width, 1))],
            config=ModelConfig(batching=False),
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that Triton's own process is ended as well
        triton.run()
        print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a TFLite file")
    main(parser.parse_args().model)
