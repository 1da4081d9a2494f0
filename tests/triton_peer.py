"""A KServe client that is not ours, run by its own interpreter: frames of an .npz in, masks and answers of another out.

python triton_peer.py HOST:PORT frames.npz masks.npz
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def tensor(name: str, values: np.ndarray, datatype: str = "UINT8") -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def main(target: str, source: str, destination: str) -> None:
    client = triton.InferenceServerClient(target)
    given = np.load(source)
    frames, jpeg = given["frames"], given["jpeg"].tobytes()
    metadata = client.get_model_metadata("portrait", as_json=True)
    masks, prior = [], None
    for frame in frames:
        inputs = [tensor("image", frame[None])] + ([] if prior is None else [tensor("prior", prior)])
        prior = client.infer("portrait", inputs, outputs=[triton.InferRequestedOutput("mask")]).as_numpy("mask")
        masks.append(prior)
    still = client.infer("portrait", [tensor("image", np.array([jpeg], np.object_), "BYTES")]).as_numpy("mask")
    refusals = []
    for name, inputs in [
        ("nobody", [tensor("image", frames[0])]),
        ("portrait", [tensor("picture", frames[0])]),
        ("portrait", [tensor("image", frames[0][..., 0])]),
        ("portrait", [tensor("image", frames[0]), tensor("prior", frames[0][:8, :8, :1].copy())]),
    ]:
        try:
            client.infer(name, inputs)
        except InferenceServerException as error:
            refusals.append(f"{error.status()} {error.message()}")
    answers = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model": client.is_model_ready("portrait"),
        "other model": client.is_model_ready("nobody"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": metadata,
        "refusals": refusals,
    }
    np.savez(destination, masks=np.array(masks), still=still, answers=json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
