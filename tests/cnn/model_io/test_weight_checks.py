"""Damaged weights are refused by the name of their layer."""

import numpy as np
import pytest

from cnn.config.run import RecipeName
from cnn.errors import ArtifactError
from cnn.model_io import weight_checks
from cnn.train import networks, recipes

pytestmark = pytest.mark.usefixtures("prepared")


@pytest.mark.parametrize("recipe", ["spec", "notebook"])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "dense1", "logits"])
@pytest.mark.parametrize(
    ("damage", "problem"), [(np.nan, "not finite"), (np.inf, "not finite"), (3e38, "so large")]
)
def test_one_damaged_weight_is_refused(
    recipe: RecipeName, layer: str, damage: float, problem: str
) -> None:
    """In any layer, with or without biases, although a ReLU may hide it from the activations."""
    settings = recipes.RECIPES[recipe].model_copy(update={"dense1_units": 4})
    network = networks.build(settings, (28, 28, 1), 10, seed=0)
    weight_checks.refuse_damaged(network)
    weight = network.get_layer(layer).trainable_weights[0]
    kernel = weight.numpy()
    kernel.flat[0] = damage
    weight.assign(kernel)
    with pytest.raises(ArtifactError, match=f"weights of {layer} are {problem}"):
        weight_checks.refuse_damaged(network)
