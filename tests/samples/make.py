"""Makes the small network files beside this script: `python tests/samples/make.py` (needs the training extra)."""

import tempfile
from pathlib import Path

import tensorflow as tf

FOLDER = Path(__file__).parent


def write(name: str, function, **inputs) -> None:
    """Write `function` as a TFLite file with one signature."""
    specs = {key: tf.TensorSpec(shape, tf.float32, name=key) for key, shape in inputs.items()}
    module = tf.Module()
    concrete = tf.function(function).get_concrete_function(**specs)
    with tempfile.TemporaryDirectory() as saved:
        tf.saved_model.save(module, saved, signatures=concrete)
        (FOLDER / f"{name}.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(saved).convert())


write("other_tensors", lambda x: {"y": x[:, :4] * 2.0}, x=(1, 8))
write("stateless", lambda image: {"mask": tf.reduce_mean(image, axis=3, keepdims=True)}, image=(1, 16, 32, 3))
write(
    "nan",
    lambda image: {"mask": tf.math.log(tf.reduce_mean(image, axis=3, keepdims=True) * 0.0 - 1.0)},
    image=(1, 16, 32, 3),
)
