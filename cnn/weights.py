"""A look at a model's weights before anything is computed with them."""

from typing import Any

import numpy as np

from cnn.errors import ArtifactError


def refuse_damaged(model: Any) -> None:
    """Raise ArtifactError where a weight of a keras.Model is NaN or infinite.

    Activations do not show it: a ReLU may turn NaN into 0.
    """
    for layer in model.layers:
        if not all(np.isfinite(weight).all() for weight in layer.get_weights()):
            raise ArtifactError(f"weights of {layer.name} are not finite; the model is damaged")
