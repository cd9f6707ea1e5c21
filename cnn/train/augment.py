"""Random small affine changes of training images, in the graph, from (seed, step)."""

import math
from typing import Any

from cnn.config import Training


def transform(images: Any, settings: Training, seed: Any) -> Any:
    """Return images (n, h, w, c) float32, each shifted, rotated and scaled by chance.

    seed: int64 tensor (2,). Pixels from outside are 0. Without augmentation in the
    settings the images are returned as they are.
    """
    import tensorflow as tf

    largest = (
        settings.augment_shift,
        settings.augment_shift,
        math.radians(settings.augment_rotation),
        settings.augment_scale,
    )
    if not any(largest):
        return images
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform([4, n], seed, -1.0, 1.0, alg="philox")
    shift_x, shift_y, angle, growth = tf.unstack(draws * tf.constant(largest)[:, None])
    matrices = _matrices(tf, shift_x, shift_y, angle, 1 + growth, height, width)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _matrices(
    tf: Any, shift_x: Any, shift_y: Any, angle: Any, size: Any, height: int, width: int
) -> Any:
    """Return (n, 8) projective transforms from output to input pixels, about the centre."""
    cos, sin = tf.cos(angle) / size, tf.sin(angle) / size
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    offset_x = centre_x - cos * (centre_x + shift_x) + sin * (centre_y + shift_y)
    offset_y = centre_y - sin * (centre_x + shift_x) - cos * (centre_y + shift_y)
    zero = tf.zeros_like(cos)
    return tf.stack([cos, -sin, offset_x, sin, cos, offset_y, zero, zero], axis=1)
