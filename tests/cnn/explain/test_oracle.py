"""The whole way on real MNIST: train, mine, and compare with brute force from the raw weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.config.run import DataConfig
from cnn.data import sources
from cnn.data.dataset import Dataset
from cnn.train import fit, recipes
from tests.cnn.explain import oracle
from tests.cnn.explain.planted import mine

pytestmark = [pytest.mark.slow, pytest.mark.real_mnist, pytest.mark.usefixtures("prepared")]

LAYERS = ("conv1", "conv2")
Real = tuple[Any, Dataset, dict[str, NDArray[np.float64]]]


@pytest.fixture(scope="module")
def real(
    mnist_dir: Path, prepared: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Real]:
    """A network trained for 100 steps of `fast`, MNIST, and the test images' values before ReLU."""
    config = DataConfig(source="folder", path=mnist_dir)
    downloads = tmp_path_factory.mktemp("downloads")
    mnist = sources.load(sources.identify(config, downloads), config)
    test = mnist.splits["test"]
    assert (mnist.name, len(test)) == ("mnist", 10_000)
    np.testing.assert_array_equal(test.ids, np.arange(10_000))
    settings = recipes.FAST.model_copy(update={"precision": "float32", "steps": 100})
    network = fit.fit(mnist, settings, seed=0).model
    computed = {c: oracle.activations(network, c, test.images, rectified=False) for c in LAYERS}
    yield network, mnist, computed
    computed.clear()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("lowest", [False, True])
def test_patches_of_mnist_equal_a_full_sort_over_all_test_images(
    real: Real, layer: str, lowest: bool
) -> None:
    """Every row's activation is the oracle's to 1e-4, at its rank and at its position.

    The lowest are those before the ReLU; all are below 0.
    """
    network, mnist, computed = real
    rows, values = mine(network, layer, mnist, lowest=lowest).rows, computed[layer]
    assert values.shape == (10_000, 9, 9, {"conv1": 25, "conv2": 64}[layer])
    assert len(rows) > 20 * 12, "most filters fire after 100 steps"
    assert all((row["activation"] < 0) == lowest for row in rows)
    if lowest:
        rows, values = [row | {"activation": -row["activation"]} for row in rows], -values
    assert oracle.n_agreeing_ranks(rows, values, 12) > 0.9 * len(rows)
