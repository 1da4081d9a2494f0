"""Export weights to TFLite: `python -m training.export runs/mobilenetv2 service/portrait/models/portrait.tflite`.

The 16x16 stride-8 transposed convolution is trained as it is and exported as a 3x3 convolution to 64 channels and a
depth-to-space by 8: the same numbers, at 0.7 of the network's time under XNNPACK. A file whose output differs from
Keras by more than 1e-4 on pictures of the val split is not written.
"""

import argparse
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from training import evaluate, model
from training.configs import Config
from training.data import Portraits

TOLERANCE = 1e-4
STRIDE, KERNEL = 8, 16


def remap_head(kernel):
    """(3,3,1,64) of the convolution that does what the transposed convolution of (16,16,1,1) with stride 8 does.

    Output row 8p + a of the transposed convolution ("same": 4 rows cut off) sums kernel row a + 4 - 8d times input row
    p + d over d = -1, 0, 1, where that kernel row exists.
    """
    weights = np.zeros((3, 3, 1, STRIDE * STRIDE), np.float32)
    offset = (KERNEL - STRIDE) // 2
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            for a in range(STRIDE):
                for b in range(STRIDE):
                    row, column = a + offset - STRIDE * down, b + offset - STRIDE * right
                    if 0 <= row < KERNEL and 0 <= column < KERNEL:
                        weights[down + 1, right + 1, 0, a * STRIDE + b] = kernel[row, column, 0, 0]
    return weights


def convert(network):
    """The bytes of a float32 TFLite file with one signature: image, prior -> mask."""
    body = keras.Model(network.input, network.get_layer(model.DIRTY_MASK).output)
    kernel, bias = network.get_layer(model.HEAD).get_weights()
    kernel = remap_head(kernel)

    def infer(**inputs):
        logits = tf.nn.conv2d(body(inputs, training=False), kernel, 1, "SAME") + bias
        return {"mask": tf.nn.depth_to_space(tf.nn.sigmoid(logits), STRIDE)}

    specs = {
        name: tf.TensorSpec((1, *tensor.shape[1:]), tf.float32, name=name) for name, tensor in network.input.items()
    }
    # Frozen before it is saved: the converter leaves the variables of Keras 3 unread otherwise, and every mask is NaN.
    frozen = convert_variables_to_constants_v2(tf.function(infer).get_concrete_function(**specs))

    def serve(**inputs):
        return {"mask": frozen(*[inputs[tensor.name.split(":")[0]] for tensor in frozen.inputs])[0]}

    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        tf.saved_model.save(module, folder, signatures=tf.function(serve).get_concrete_function(**specs))
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def largest_difference(network, data, pictures):
    """The largest difference between Keras and the file, for each picture with an empty prior and with its own mask."""
    runner = Interpreter(model_content=data, num_threads=1).get_signature_runner()
    size = network.input["image"].shape[1]
    worst = 0.0
    for picture in pictures:
        inputs = {"image": evaluate.to_input(picture, size, size)}
        if "prior" in network.input:
            inputs["prior"] = np.zeros((1, size, size, 1), np.float32)
        for _ in range(2):
            expected = np.asarray(network.predict_on_batch(inputs))
            difference = np.abs(runner(**inputs)["mask"] - expected).max()
            # max() would pass over NaN, the very thing a broken export gives.
            worst = max(worst, float(difference)) if np.isfinite(difference) else float("inf")
            if "prior" in inputs:
                inputs["prior"] = expected
    return worst


def load(run, weights="best"):
    """The network of a training run with the weights of its `best` or `last` epoch."""
    config = Config(**json.loads((run / "state.json").read_text())["config"])
    network = model.build(config.encoder, config.size)
    network.load_weights(run / f"{weights}.weights.h5")
    return network


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("target", type=Path)
    parser.add_argument("--weights", choices=["best", "last"], default="best")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/portraits"))
    arguments = parser.parse_args()
    network = load(arguments.run, arguments.weights)
    data = convert(network)
    val = Portraits(arguments.data, "val")
    pictures = [val[index][0] for index in range(0, len(val), 20)]
    difference = largest_difference(network, data, pictures)
    print(f"largest difference to Keras on {len(pictures)} val pictures, two frames each: {difference:.2e}")
    if not difference <= TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE:g}: {arguments.target} is not written")
    arguments.target.write_bytes(data)
    print(f"{arguments.target}: {len(data)} bytes")


if __name__ == "__main__":
    main()
