"""Mining with every option equals a full sort, on a network whose activations are integers.

Integers are exact in float32 and in float64, and many of them are equal: every row must be the
one that the order demands.
"""

from typing import Any

import numpy as np
import pytest

from cnn.data.dataset import Dataset, Split
from cnn.explain import activations
from tests.cnn.explain import oracle, planted
from tests.cnn.explain.planted import mine

pytestmark = pytest.mark.usefixtures("prepared")

N_IMAGES, FIRST_ID = 37, 500
N_FILTERS = {"conv1": 3, "conv2": 4, "pool": 4}
every_layer = pytest.mark.parametrize("layer", N_FILTERS)


@pytest.fixture(scope="module")
def network(prepared: object) -> Any:
    """A network whose convolutions have small integer weights; filter 0 of both seldom fires."""
    rng = np.random.default_rng(5)
    built = planted.build(conv1_filters=3, conv2_filters=4, dense1_units=8)
    for layer, rare in (("conv1", -14), ("conv2", -30)):
        with planted.weights(built, layer) as (kernel, bias):
            bias[:] = rng.integers(-3, 4, bias.shape)
            bias[0] = rare
            kernel[:] = rng.integers(-2, 3, kernel.shape)
    return built


@pytest.fixture(scope="module")
def dataset(digits: Dataset) -> Dataset:
    """Black and white images, so that the scaled pixels are 0 and 1; many images are equal."""
    rng = np.random.default_rng(2)
    images = rng.choice(np.array([0, 0, 255], np.uint8), (N_IMAGES, 28, 28, 1))
    images[7:35] = np.tile(images[:7], (4, 1, 1, 1))
    labels, ids = rng.integers(0, 10, N_IMAGES), np.arange(N_IMAGES) + FIRST_ID
    return planted.with_test(digits, Split(images, labels, ids))


def _check(
    network: Any, layer: str, dataset: Dataset, sign: int = 1, **settings: Any
) -> list[list[int]]:
    """Assert that every row is that of a full sort; return each filter's [n_rows, n_tied]."""
    images = dataset.splits["test"].images
    values = oracle.activations(network, layer, images, rectified=sign == 1)
    assert (values == np.round(values)).all()
    found = mine(network, layer, dataset, **settings)
    options = {
        "floor": 0.0 if sign == 1 else -np.inf,
        "one_per_image": settings.get("one_per_image", False),
        "radius": settings.get("suppression_radius", 0),
    }
    counted, rows = [], iter(found.rows)
    searched = settings.get("filters", range(N_FILTERS[layer]))
    for array in found.views.values():
        assert len(array) == N_FILTERS[layer]
        assert not np.delete(array, searched, axis=0).any(), "filters that were not searched"
    for f in searched:
        k = settings.get("patches_per_filter", 12)
        expected, n_tied = oracle.mined(sign * values[..., f], k, **options)
        for rank, position in enumerate(expected, start=1):
            row = next(rows)
            assert [row[name] for name in ("layer", "filter", "rank")] == [layer, f, rank]
            assert row["image_id"] == position.image + FIRST_ID
            assert (row["y"], row["x"]) == (position.y, position.x)
            assert row["activation"] == sign * position.activation
            assert row["n_tied"] == n_tied
            oracle.check_box_and_pixels(images[position.image], row, found.pixels)
        assert not found.pixels[f, len(expected) :].any()
        counted.append([len(expected), n_tied])
    assert next(rows, None) is None, "more rows than a full sort has"
    assert found.pixels.dtype == np.uint8
    return counted


OPTIONS: list[dict[str, Any]] = [
    {},
    {"patches_per_filter": 1},
    {"one_per_image": True},
    {"suppression_radius": 1},
    {"suppression_radius": 3},
    {"suppression_radius": 2, "one_per_image": True},
    {"filters": (0, 2)},
]


@every_layer
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("largest_batch", [1000, 5])
def test_the_strongest_are_those_of_a_full_sort(
    network: Any,
    dataset: Dataset,
    layer: str,
    options: dict[str, Any],
    largest_batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows, boxes, pixels and n_tied, in one batch and in many, with planted ties."""
    monkeypatch.setattr(activations, "_LARGEST_BATCH", largest_batch)
    counted = _check(network, layer, dataset, **options)
    if not options:
        assert any(n_tied for _, n_tied in counted), "no tie at the last rank: nothing shown"


@every_layer
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_lowest_are_those_of_a_full_sort_before_the_relu(
    network: Any,
    dataset: Dataset,
    layer: str,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ascending; negative where the layer itself has a ReLU, while zeros and more count too."""
    monkeypatch.setattr(activations, "_LARGEST_BATCH", 10)
    counted = _check(network, layer, dataset, sign=-1, lowest=True, **options)
    k = options.get("patches_per_filter", 12)
    assert [n for n, _ in counted] == [k] * len(counted), "every filter has its lowest"
    rows = mine(network, layer, dataset, lowest=True, **options).rows
    assert all((row["activation"] < 0) == (layer != "pool") for row in rows)
    assert not any(np.signbit(row["activation"]) for row in rows if layer == "pool")


@every_layer
@pytest.mark.parametrize("one_per_image", [False, True])
def test_more_patches_than_positions_that_fire(
    network: Any, dataset: Dataset, layer: str, one_per_image: bool
) -> None:
    """All that fire are kept, in order and without a tie; the pixels of other ranks are black."""
    per_image = 1 if one_per_image else {"conv1": 81, "conv2": 81, "pool": 16}[layer]
    options = {"patches_per_filter": N_IMAGES * per_image, "one_per_image": one_per_image}
    counted = _check(network, layer, dataset, **options)
    assert 0 < counted[0][0] < N_IMAGES * per_image
    assert [n_tied for _, n_tied in counted] == [0] * len(counted)
