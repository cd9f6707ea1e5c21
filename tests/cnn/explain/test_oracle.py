"""The whole way on real MNIST: train, mine, and compare with brute force."""

from pathlib import Path

import numpy as np
import pytest

from cnn.config import DataConfig, ExplainConfig
from cnn.data import sources
from cnn.explain import patches
from cnn.train import fit, recipes
from tests.cnn.explain import oracle

pytestmark = [pytest.mark.slow, pytest.mark.real_mnist, pytest.mark.usefixtures("prepared")]


def test_patches_of_mnist_equal_a_full_sort_over_all_test_images(
    mnist_dir: Path, tmp_path: Path
) -> None:
    """100 steps of `fast`; then all 25 filters over 810,000 positions, in float64."""
    config = DataConfig(source="folder", path=mnist_dir)
    mnist = sources.load(sources.identify(config, tmp_path), config, tmp_path)
    test = mnist.splits["test"]
    assert (mnist.name, len(test)) == ("mnist", 10_000)
    settings = recipes.FAST.model_copy(update={"precision": "float32", "steps": 100})
    network = fit.fit(mnist, settings, seed=0).model
    mined = patches.mine(network, "conv1", mnist, ExplainConfig())
    kernel, bias = network.get_layer("conv1").get_weights()
    activations = oracle.convolve(test.images, kernel, bias, stride=2)
    assert activations.shape == (10_000, 9, 9, 25)
    np.testing.assert_array_equal(test.ids, np.arange(10_000))
    n_sure = 0
    for f in range(25):
        rows = [row | {"image": row["image_id"]} for row in mined.rows if row["filter"] == f]
        n_sure += oracle.n_agreeing_ranks(rows, activations, f, 12)
    assert n_sure > 0.9 * len(mined.rows)
    assert len(mined.rows) > 20 * 12, "most filters fire after 100 steps"
