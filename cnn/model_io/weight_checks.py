"""Check a model's weights before anything is computed with them."""

from typing import Any

import numpy as np

from cnn.errors import ArtifactError
from cnn.model_io.keras_types import Layer, Model

_LARGEST_PIXEL = 255.0
_LARGEST = float(np.finfo(np.float32).max) / 2  # room for the rounding of sums


def refuse_damaged(model: Model) -> None:
    """Raise ArtifactError if weights of a keras.Model are not finite, or too large.

    Activations need not show it: a ReLU may turn NaN into 0, and a maximum ignores NaN. Weights
    are too large if a sum could become infinite for some image of pixels 0..255.
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
    """Return a bound on a layer's outputs from a bound on its inputs, both in absolute value.

    sizes: absolute values of its weights. Layers other than convolutions, dense layers and
    rescaling are assumed to enlarge nothing.
    """
    match type(layer).__name__:
        case "Rescaling":
            scale, offset = (np.abs(getattr(layer, name)).max() for name in ("scale", "offset"))
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
