"""Networks with planted weights, data sets of given images, and mining on both."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.config.run import MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.explain import patches
from cnn.train import networks, recipes


def build(shape: tuple[int, int, int] = (28, 28, 1), seed: int = 0, **changes: Any) -> Any:
    """Return an untrained network of 10 classes: the recipe `spec` with some settings changed."""
    settings = recipes.SPEC.model_copy(update=changes)
    return networks.build(settings, shape, 10, seed)


def copied(network: Any) -> Any:
    """Return a network with the same layers and weights."""
    import keras

    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


@contextlib.contextmanager
def weights(network: Any, layer: str) -> Iterator[Any]:
    """Yield a layer's weights; what is changed in place, the layer has afterwards."""
    values = network.get_layer(layer).get_weights()
    yield values
    network.get_layer(layer).set_weights(values)


def with_test(dataset: Dataset, split: Split) -> Dataset:
    """Return a data set with another test split."""
    return replace(dataset, splits={**dataset.splits, "test": split})


def with_images(dataset: Dataset, images: NDArray[Any], first_id: int = 0) -> Dataset:
    """Return a data set with these test images, all of class 0."""
    n = len(images)
    return with_test(dataset, Split(images, np.zeros(n, np.int64), np.arange(n) + first_id))


def mine(
    network: Any,
    layer: str,
    dataset: Dataset,
    report: progress.Report = progress.ignore,
    **settings: Any,
) -> patches.Patches:
    """Mine a layer, by default the 12 strongest patches of each filter in the test images."""
    config = MiningConfig(layer=layer, **settings)
    return patches.mine(network, dataset, config, dataset.class_names, report)
