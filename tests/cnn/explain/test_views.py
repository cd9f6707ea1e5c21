"""Projections beside the patches: of the same activation, cropped as the pixels are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnn.config.run import MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.explain import patches
from cnn.train import fit, networks, recipes
from tests.cnn.explain import oracle

pytestmark = pytest.mark.usefixtures("prepared")

LAYERS = ("conv1", "conv2", "pool")


def _mine(network: Any, layer: str, dataset: Dataset, **settings: Any) -> patches.Patches:
    wanted = MiningConfig(layer=layer, **settings)
    return patches.mine(network, dataset, wanted, dataset.class_names)


@pytest.fixture(scope="module")
def mined(trained: fit.Fitted, digits: Dataset) -> dict[str, patches.Patches]:
    """The 14 strongest patches of every filter: more than are projected."""
    return {layer: _mine(trained.model, layer, digits, patches_per_filter=14) for layer in LAYERS}


def _projection(found: patches.Patches, row: dict[str, Any]) -> Any:
    return found.views["projections"][row["filter"], row["rank"] - 1]


def _projected_rows(found: patches.Patches) -> list[dict[str, Any]]:
    return [row for row in found.rows if row["rank"] <= 12]


@pytest.mark.parametrize(("layer", "size"), [("conv1", 12), ("conv2", 20), ("pool", 22)])
def test_the_first_twelve_ranks_are_projected_in_the_size_of_the_patch(
    mined: dict[str, patches.Patches], layer: str, size: int
) -> None:
    """float32, of the pixels' shape but for the ranks; each shows something."""
    found = mined[layer]
    n_filters, n_ranks, *rest = found.views["projections"].shape
    assert (n_filters, n_ranks) == (len(found.pixels), 12)
    assert rest == [size, size, 1] == list(found.pixels.shape[2:])
    assert found.views["projections"].dtype == np.float32
    assert all(_projection(found, row).any() for row in _projected_rows(found))


def test_a_projection_of_conv1_is_the_kernel_times_the_activation(
    mined: dict[str, patches.Patches], trained: fit.Fitted
) -> None:
    """As it stands in the model, not mirrored, to 1e-5."""
    kernel = trained.model.get_layer("conv1").get_weights()[0]
    mirrored = 0
    for row in _projected_rows(mined["conv1"]):
        found, own = _projection(mined["conv1"], row), kernel[..., row["filter"]]
        np.testing.assert_allclose(found, row["activation"] * own, atol=1e-5)
        mirrored += np.abs(found - row["activation"] * own[::-1, ::-1]).max() < 1e-5
    assert not mirrored


def _by_hand(network: Any, image: Any, row: dict[str, Any]) -> Any:
    """Return the projection of a conv2 unit on the padded plane of pixels, tap by tap.

    From its activation through its kernel to the units of conv1 that fire, and through their
    kernels to the pixels: at a ReLU what is negative on the way down is dropped.
    """
    first, second = (network.get_layer(name).get_weights()[0] for name in ("conv1", "conv2"))
    plane = np.zeros((28, 28, 1))
    for i, j in np.ndindex(5, 5):
        y, x = row["y"] + i - 2, row["x"] + j - 2
        if 0 <= y < 9 and 0 <= x < 9:
            signal = np.maximum(row["activation"] * np.float64(second[i, j, :, row["filter"]]), 0)
            plane[2 * y : 2 * y + 12, 2 * x : 2 * x + 12] += np.float64(first) @ signal
    return plane


def test_a_projection_of_conv2_equals_one_by_hand_and_is_cropped_as_the_pixels(
    mined: dict[str, patches.Patches], trained: fit.Fitted, digits: Dataset
) -> None:
    """At the borders too: zero where the crop lies outside of the image."""
    found, n_outside = mined["conv2"], 0
    images, ids = digits.splits["test"].images, digits.splits["test"].ids.tolist()
    for row in _projected_rows(found):
        plane = _by_hand(trained.model, images[ids.index(row["image_id"])], row)
        top, left = 2 * row["y"] - 4, 2 * row["x"] - 4
        padded = np.pad(plane, [(4, 4), (4, 4), (0, 0)])
        wanted = padded[top + 4 : top + 24, left + 4 : left + 24]
        projection = _projection(found, row)
        np.testing.assert_allclose(projection, wanted, atol=1e-5 * np.abs(wanted).max())
        assert np.abs(plane).sum() == pytest.approx(np.abs(wanted).sum()), "all lies in the box"
        outside = np.ones((20, 20), bool)
        outside[max(-top, 0) : 28 - top, max(-left, 0) : 28 - left] = False
        assert not projection[outside].any()
        n_outside += bool(outside.any())
    assert 0 < n_outside < len(_projected_rows(found))


def test_a_projection_of_the_pool_is_that_of_the_place_that_won(
    mined: dict[str, patches.Patches], trained: fit.Fitted, digits: Dataset
) -> None:
    """Two by two units of conv2: the strongest in this image, and its projection."""
    images, ids = digits.splits["test"].images, digits.splits["test"].ids.tolist()
    for row in _projected_rows(mined["pool"])[::7]:
        image = images[ids.index(row["image_id"])]
        values = oracle.activations(trained.model, "conv2", image[None])[0, ..., row["filter"]]
        y0, x0 = 2 * row["y"], 2 * row["x"]
        y, x = np.unravel_index(values[y0 : y0 + 2, x0 : x0 + 2].argmax(), (2, 2))
        unit = row | {"y": int(y0 + y), "x": int(x0 + x)}
        padded = np.pad(_by_hand(trained.model, image, unit), [(4, 4), (4, 4), (0, 0)])
        wanted = padded[2 * y0 : 2 * y0 + 22, 2 * x0 : 2 * x0 + 22]
        found = _projection(mined["pool"], row)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def sparse(digits: Dataset, prepared: object) -> tuple[Any, Dataset]:
    """A network of a dead and a positive filter; of three images one has one lit pixel."""
    changes = {"conv1_filters": 2, "conv2_filters": 2, "dense1_units": 4, "conv_bias": False}
    network = networks.build(recipes.SPEC.model_copy(update=changes), (28, 28, 1), 10, seed=0)
    kernel = np.stack([np.full((12, 12, 1), -0.1), np.full((12, 12, 1), 0.1)], axis=-1)
    network.get_layer("conv1").set_weights([kernel])
    images = np.zeros((3, 28, 28, 1), np.uint8)
    images[1, 0, 0] = 255
    test = Split(images, np.zeros(3, np.int64), np.arange(3))
    return network, replace(digits, splits={**digits.splits, "test": test})


def test_ranks_without_a_patch_have_no_projection(sparse: tuple[Any, Dataset]) -> None:
    """Zeros, as their pixels are."""
    network, dataset = sparse
    found = _mine(network, "conv1", dataset, patches_per_filter=3)
    assert [(row["filter"], row["rank"]) for row in found.rows] == [(1, 1)]
    assert found.views["projections"].shape == (2, 3, 12, 12, 1)
    np.testing.assert_allclose(found.views["projections"][1, 0], 0.1 * 0.1, rtol=1e-5)
    assert not found.views["projections"][0].any()
    assert not found.views["projections"][1, 1:].any()


def test_where_nothing_fires_there_are_zeros(sparse: tuple[Any, Dataset]) -> None:
    """The arrays have their shape all the same."""
    network, dataset = sparse
    test = dataset.splits["test"]
    black = replace(test, images=np.zeros_like(test.images))
    dark = replace(dataset, splits={**dataset.splits, "test": black})
    found = _mine(network, "conv2", dark, patches_per_filter=3)
    assert found.rows == []
    assert found.views["projections"].shape == (2, 3, 20, 20, 1)
    assert not found.views["projections"].any()


@pytest.mark.parametrize("layer", LAYERS)
def test_the_lowest_have_no_views(trained: fit.Fitted, digits: Dataset, layer: str) -> None:
    """There is no positive activation that could go down."""
    found = _mine(trained.model, layer, digits, lowest=True, filters=(0,))
    assert list(found.views) == ["patches"]
