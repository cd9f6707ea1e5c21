"""The network's forward pass in plain operations, as the training's graph has it.

The saved model does the same with Keras layers (`cnn.train.networks`), always in float32.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from cnn.config.training import Training

Drop = Callable[[Any], Any]


def keep_all(values: Any) -> Any:
    """Return the values: nothing is dropped outside of training."""
    return values


def logits(
    weights: Mapping[str, Any],
    pixels: Any,
    settings: Training,
    drop: Drop = keep_all,
    xla: bool = False,
) -> Any:
    """Return the logits of images, float32 (n, classes), computed in the training's precision.

    weights: float32, by layer and name, "conv1/kernel". pixels: (n, h, w, c), 0..255.
    drop: what happens to the units of dense1, in training. xla: whether XLA compiles this.
    Raises TypeError for the precision "auto", which is to be resolved before.
    """
    import tensorflow as tf

    dtype = tf.as_dtype(settings.precision)
    weights = {name: tf.cast(weight, dtype) for name, weight in weights.items()}

    def with_bias(values: Any, layer: str) -> Any:
        bias = weights.get(f"{layer}/bias")
        return values if bias is None else tf.nn.bias_add(values, bias)

    def convolved(values: Any, layer: str, stride: int, padding: str) -> Any:
        values = tf.nn.conv2d(values, weights[f"{layer}/kernel"], stride, padding)
        return tf.nn.relu(with_bias(values, layer))

    def dense(values: Any, layer: str) -> Any:
        return with_bias(_product(values, weights[f"{layer}/kernel"]), layer)

    values = tf.cast(tf.cast(pixels, tf.float32) * (1 / 255), dtype)
    values = convolved(values, "conv1", settings.conv1_stride, "VALID")
    values = convolved(values, "conv2", 1, "SAME")
    values = pooled(values) if xla else tf.nn.max_pool2d(values, 2, 2, "VALID")
    values = tf.reshape(values, (-1, weights["dense1/kernel"].shape[0]))
    values = drop(tf.nn.relu(dense(values, "dense1")))
    values = tf.cast(dense(values, "logits"), tf.float32)
    return tf.nn.relu(values) if settings.logits_activation == "relu" else values


def pooled(values: Any) -> Any:
    """Return what max_pool2d does; XLA for GPUs has no deterministic gradient of that one."""
    import tensorflow as tf

    height, width = (side - side % 2 for side in values.shape[1:3])
    whole = values[:, :height, :width]
    return reduce(tf.maximum, [whole[:, y::2, x::2] for y in (0, 1) for x in (0, 1)])


def _product(values: Any, kernel: Any) -> Any:
    """Return values @ kernel, (n, o), with a faster gradient than matmul's own.

    For the transposed kernel oneDNN's product behind einsum takes a third of the time of the
    one behind matmul, at 50 images and 1024 units; forward, matmul is the faster one.
    """
    import tensorflow as tf

    def product(values: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_values = tf.einsum("no,io->ni", upstream, kernel)
            return of_values, tf.matmul(values, upstream, transpose_a=True)

        return tf.matmul(values, kernel), gradient

    return tf.custom_gradient(product)(values, kernel)
