"""A look at a model's weights before anything is computed with them."""

from typing import Any

import numpy as np

from cnn.errors import ArtifactError
from cnn.model_io.keras_types import Layer, Model

_LARGEST_PIXEL = 255.0
_LARGEST = float(np.finfo(np.float32).max) / 2  # room for the rounding of sums


def refuse_damaged(model: Model) -> None:
    """Raise ArtifactError where a weight of a keras.Model is not finite, or too large to compute.

    Activations do not show it: a ReLU may turn NaN into 0, and a maximum passes NaN over. Too
    large is what could lead to an infinite sum at pixels of 0..255, whatever the image.
    """
    bound = _LARGEST_PIXEL
    for layer in model.layers:
        weights = layer.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            raise ArtifactError(f"weights of {layer.name} are not finite; the model is damaged")
        bound = _bound(layer, [np.abs(np.float64(weight)) for weight in weights], bound)
        if bound > _LARGEST:
            raise ArtifactError(
                f"weights of {layer.name} are so large that activations are not finite; the model "
                "is damaged"
            )


def _bound(layer: Layer, sizes: list[Any], bound: float) -> float:
    """Return what no output of a layer exceeds when its inputs do not exceed a bound.

    sizes: absolute values of its weights. Layers other than convolutions, dense layers and
    scaling are taken to enlarge nothing.
    """
    match type(layer).__name__:
        case "Rescaling":
            scale, offset = (np.abs(layer.get_config()[name]).max() for name in ("scale", "offset"))
            return float(scale * bound + offset)
        case "Conv2D" | "Dense":
            kernel, *bias = sizes
            sums = kernel.reshape(-1, kernel.shape[-1]).sum(axis=0)
        case "DepthwiseConv2D":
            kernel, *bias = sizes
            sums = kernel.sum(axis=(0, 1))
        case _:
            return bound
    return float(sums.max(initial=0.0) * bound + sum(item.max(initial=0.0) for item in bias))
