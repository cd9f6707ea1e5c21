"""The whole way on real MNIST: train, mine, and compare with brute force from the raw weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.config.run import DataConfig, MiningConfig
from cnn.data import sources
from cnn.data.dataset import Dataset
from cnn.explain import filters, patches
from cnn.train import fit, recipes
from tests.cnn.explain import oracle

pytestmark = [pytest.mark.slow, pytest.mark.real_mnist, pytest.mark.usefixtures("prepared")]

LAYERS = ("conv1", "conv2")
every_layer = pytest.mark.parametrize("layer", LAYERS)


@dataclass(frozen=True)
class Real:
    """A network that was trained on MNIST, and its activations of all test images."""

    network: Any
    mnist: Dataset
    activations: dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def real(
    mnist_dir: Path, prepared: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Real]:
    """100 steps of `fast`; conv1's 810,000 positions and conv2's in float64."""
    config = DataConfig(source="folder", path=mnist_dir)
    downloads = tmp_path_factory.mktemp("downloads")
    mnist = sources.load(sources.identify(config, downloads), config)
    test = mnist.splits["test"]
    assert (mnist.name, len(test)) == ("mnist", 10_000)
    np.testing.assert_array_equal(test.ids, np.arange(10_000))
    settings = recipes.FAST.model_copy(update={"precision": "float32", "steps": 100})
    network = fit.fit(mnist, settings, seed=0).model
    computed = {layer: oracle.activations(network, layer, test.images) for layer in LAYERS}
    yield Real(network, mnist, computed)
    computed.clear()


def _rows(found: patches.Patches, f: int) -> list[dict[str, Any]]:
    return [row | {"image": row["image_id"]} for row in found.rows if row["filter"] == f]


def _mine(real: Real, layer: str, **settings: Any) -> patches.Patches:
    wanted = MiningConfig(layer=layer, **settings)
    return patches.mine(real.network, real.mnist, wanted, real.mnist.class_names)


@every_layer
def test_patches_of_mnist_equal_a_full_sort_over_all_test_images(real: Real, layer: str) -> None:
    """Every row's activation is the oracle's to 1e-4, at its rank and at its position."""
    values, found = real.activations[layer], _mine(real, layer)
    assert values.shape == (10_000, 9, 9, {"conv1": 25, "conv2": 64}[layer])
    n_sure = sum(
        oracle.n_agreeing_ranks(_rows(found, f), values, f, 12) for f in range(values.shape[-1])
    )
    assert n_sure > 0.9 * len(found.rows)
    assert len(found.rows) > 20 * 12, "most filters fire after 100 steps"


@every_layer
def test_every_row_of_mnist_follows_from_its_image_alone(real: Real, layer: str) -> None:
    """Activation within 1e-4, box, and pixels, each recomputed from weights and image."""
    images, found = real.mnist.splits["test"].images, _mine(real, layer)
    for row in found.rows:
        image = images[row["image_id"]]
        values = oracle.activations(real.network, layer, image[None])[0]
        assert abs(row["activation"] - values[row["y"], row["x"], row["filter"]]) <= 1e-4
        box_y, box_x = oracle.box(layer, row["y"]), oracle.box(layer, row["x"])
        assert [row[name] for name in ("y0", "y1", "clipped_y0", "clipped_y1")] == [*box_y]
        assert [row[name] for name in ("x0", "x1", "clipped_x0", "clipped_x1")] == [*box_x]
        padded = np.pad(image, [(8, 8), (8, 8), (0, 0)])
        crop = padded[8 + box_y[0] : 8 + box_y[1], 8 + box_x[0] : 8 + box_x[1]]
        np.testing.assert_array_equal(found.pixels[row["filter"], row["rank"] - 1], crop)


@every_layer
def test_the_lowest_of_mnist_equal_a_full_sort_before_the_relu(real: Real, layer: str) -> None:
    """They are below 0, so that the activations themselves do not show them."""
    images = real.mnist.splits["test"].images
    values = -oracle.activations(real.network, layer, images, rectified=False)
    found = _mine(real, layer, lowest=True)
    n_sure = 0
    for f in range(values.shape[-1]):
        rows = [row | {"activation": -row["activation"]} for row in _rows(found, f)]
        n_sure += oracle.n_agreeing_ranks(rows, values, f, 12)
    assert n_sure > 0.9 * len(found.rows) > 20 * 12
    assert max(row["activation"] for row in found.rows) < 0


@every_layer
def test_other_pixels_than_those_in_the_box_decide_nothing(real: Real, layer: str) -> None:
    """Noise everywhere outside of the clipped box moves no activation by 1e-5 of its value."""
    images, found = real.mnist.splits["test"].images, _mine(real, layer)
    oracle.check_that_boxes_hold_all_that_counts(real.network, images, found.rows)


@every_layer
def test_filters_of_mnist_are_described_as_brute_force_has_them(real: Real, layer: str) -> None:
    """Largest, mean and share of active positions, and correlations, over 10,000 images."""
    values, rows = real.activations[layer], filters.describe(real.network, layer, real.mnist).rows
    flat = values.reshape(-1, values.shape[-1])
    share = (flat > 0).mean(axis=0)
    for name, wanted, tolerance in (
        ("max_activation", flat.max(axis=0), 1e-4),
        ("mean_activation", flat.mean(axis=0), 1e-4),
        ("fraction_active", share, 1e-3),
    ):
        found = np.array([row[name] for row in rows])
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=1e-5, err_msg=name)
    alive = np.flatnonzero(share > 1e-3)
    correlations = np.corrcoef(flat[:, alive].T) - 2 * np.eye(len(alive))
    for f, wanted in zip(alive, correlations.max(axis=1), strict=True):
        assert rows[f]["correlation"] == pytest.approx(wanted, abs=1e-3)
