"""Random affine augmentation of training images, as graph operations seeded by (seed, step)."""

import math
from typing import Any

from cnn.config.training import Training


def transform(images: Any, settings: Training, seed: Any) -> Any:
    """Return images (n, h, w, c) float32, each randomly shifted, rotated, scaled and sheared.

    seed: int64 tensor (2,). Pixels from outside the image are 0. If the settings switch
    augmentation off, the images come back unchanged.
    """
    import tensorflow as tf

    largest = (
        settings.augment_shift,
        settings.augment_shift,
        math.radians(settings.augment_rotation),
        settings.augment_scale,
        math.radians(settings.augment_shear),
    )
    if not any(largest):
        return images
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform([len(largest), n], seed, -1.0, 1.0, alg="philox")
    shift_x, shift_y, angle, growth, shear = tf.unstack(draws * tf.constant(largest)[:, None])
    linear = _linear(tf, angle, 1 + growth, tf.tan(shear))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_about_centre(tf, linear, shift_x, shift_y, height, width),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _linear(tf: Any, angle: Any, size: Any, slope: Any) -> tuple[Any, Any, Any, Any]:
    """Return the entries of the (n, 2, 2) maps from output to input: shear, rotation, 1 / size."""
    cos, sin = tf.cos(angle) / size, tf.sin(angle) / size
    return cos, cos * slope - sin, sin, sin * slope + cos


def _about_centre(
    tf: Any,
    linear: tuple[Any, Any, Any, Any],
    shift_x: Any,
    shift_y: Any,
    height: int,
    width: int,
) -> Any:
    """Return (n, 8) projective transforms from output to input pixels, about the centre."""
    xx, xy, yx, yy = linear
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    offset_x = centre_x - xx * (centre_x + shift_x) - xy * (centre_y + shift_y)
    offset_y = centre_y - yx * (centre_x + shift_x) - yy * (centre_y + shift_y)
    zero = tf.zeros_like(xx)
    return tf.stack([xx, xy, offset_x, yx, yy, offset_y, zero, zero], axis=1)
