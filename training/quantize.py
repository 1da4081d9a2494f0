"""Smaller files of an exported one: `python -m training.quantize portrait.tflite portrait-int8.tflite int8`.

float16   weights of half the size; XNNPACK computes in float32 as before
int8      8-bit weights and activations, ranges taken from training pictures; inputs, output and the holding back of
          small changes stay float32. Only LiteRT 2 and newer take it into XNNPACK; tflite-runtime is slower with it.
"""

import argparse
from pathlib import Path

import numpy as np
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import (
    ComputePrecision,
    OpQuantizationConfig,
    TensorDataType,
    TensorQuantizationConfig,
    TFLOperationName,
)

from training import evaluate
from training.data import Portraits, add_option

HELD = r"training\.held\.Held;\d+"
"""Tensors of `held.Held` itself, outside the network: 8 bits would be too coarse to hold small changes back."""

PICTURES = 100


def float16(path):
    """A quantizer's result with 16-bit weights."""
    weights = TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT)
    config = OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=ComputePrecision.FLOAT, explicit_dequantize=True
    )
    made = quantizer.Quantizer(str(path))
    made.update_quantization_recipe(".*", TFLOperationName.ALL_SUPPORTED, config, AlgorithmName.FLOAT_CASTING)
    return made.quantize()


def int8(path, pictures):
    """A quantizer's result with 8-bit weights and activations, whose ranges are those of `pictures` (H,W,3) uint8."""
    made = quantizer.Quantizer(str(path))
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    for regex, operation in (
        (".*", TFLOperationName.INPUT),
        (".*", TFLOperationName.OUTPUT),
        (HELD, TFLOperationName.SUB),
        (HELD, TFLOperationName.MUL),
    ):
        made.update_quantization_recipe(regex, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return made.quantize(made.calibrate({"serving_default": list(samples(path, pictures))}))


def samples(path, pictures):
    """The inputs of every picture, with an empty prior and with the mask of it."""
    file = evaluate.File(path)
    for picture in pictures:
        image = evaluate.to_input(picture, file.height, file.width)
        if not file.takes_prior:
            yield {"image": image}
            continue
        mask = file(picture)[None, ..., None].copy()
        yield {"image": image, "prior": np.zeros_like(mask)}
        yield {"image": image, "prior": mask}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("format", choices=["float16", "int8"])
    add_option(parser)
    arguments = parser.parse_args()
    if arguments.format == "float16":
        made = float16(arguments.source)
    else:
        train = Portraits(arguments.data, "train")
        chosen = np.random.default_rng(0).choice(len(train), min(PICTURES, len(train)), replace=False)
        made = int8(arguments.source, [train[index][0] for index in chosen])
    made.export_model(str(arguments.target), overwrite=True)


if __name__ == "__main__":
    main()
