"""Matching finds permuted filters, and does not pair what has nothing in common."""

from typing import Any

import numpy as np
import pytest

from cnn.compare import matching
from cnn.data.dataset import Dataset
from cnn.errors import ConfigError
from cnn.explain import activations
from cnn.train import fit, networks, recipes

pytestmark = pytest.mark.usefixtures("prepared")


def _copy(network: Any) -> Any:
    import keras

    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def _permuted(network: Any, orders: dict[str, Any]) -> Any:
    """Return a copy with the filters of conv1 and conv2 in other orders; it computes the same."""
    copy = _copy(network)
    first, second = copy.get_layer("conv1"), copy.get_layer("conv2")
    kernel, bias = first.get_weights()
    first.set_weights([kernel[..., orders["conv1"]], bias[orders["conv1"]]])
    kernel, bias = second.get_weights()
    kernel = kernel[:, :, orders["conv1"]]
    second.set_weights([kernel[..., orders["conv2"]], bias[orders["conv2"]]])
    return copy


def _statuses(found: matching.Match) -> dict[str, int]:
    counted = [pair.status for pair in found.pairs]
    return {status: counted.count(status) for status in dict.fromkeys(counted)}


@pytest.mark.parametrize(("layer", "n"), [("conv1", 25), ("conv2", 64)])
def test_every_permuted_filter_is_found(
    digits: Dataset, rng: np.random.Generator, layer: str, n: int
) -> None:
    """25 of 25 and 64 of 64 of a network whose filters all fire, with a correlation of 1."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    orders = {"conv1": rng.permutation(25), "conv2": rng.permutation(64)}
    found = matching.match(network, _permuted(network, orders), layer, digits.splits["test"].images)
    assert _statuses(found) == {"same": n}
    assert [pair.before for pair in found.pairs] == list(range(n))
    assert [orders[layer][pair.after] for pair in found.pairs] == list(range(n))
    assert min(pair.correlation or 0 for pair in found.pairs) > 0.9999
    assert 0 < found.null < 0.95


def test_filters_that_never_fire_are_paired_with_such(
    trained: fit.Fitted, digits: Dataset, rng: np.random.Generator
) -> None:
    """They are neither lost nor new, and the others are found in spite of them."""
    planted = _copy(trained.model)
    kernel, bias = planted.get_layer("conv1").get_weights()
    bias[[3, 8]] = -1000
    planted.get_layer("conv1").set_weights([kernel, bias])
    orders = {"conv1": rng.permutation(25), "conv2": np.arange(64)}
    found = matching.match(
        planted, _permuted(planted, orders), "conv1", digits.splits["test"].images
    )
    assert _statuses(found) == {"same": 23, "dead": 2}
    dead = [pair for pair in found.pairs if pair.status == "dead"]
    assert {pair.before for pair in dead} == {3, 8}
    assert {orders["conv1"][pair.after] for pair in dead} == {3, 8}
    assert {pair.correlation for pair in dead} == {None}


def test_what_was_lost_what_is_new_and_what_changed_are_told(
    trained: fit.Fitted, digits: Dataset, rng: np.random.Generator
) -> None:
    """One filter is exchanged for noise, one fades into another kernel, the rest stays."""
    other = _copy(trained.model)
    kernel, bias = other.get_layer("conv1").get_weights()
    kernel[..., 4] = rng.normal(0, 0.05, (12, 12, 1))
    kernel[..., 7] += rng.normal(0, 0.6 * np.abs(kernel[..., 7]).mean(), (12, 12, 1))
    other.get_layer("conv1").set_weights([kernel, bias])
    found = matching.match(trained.model, other, "conv1", digits.splits["test"].images)
    assert _statuses(found) == {"same": 23, "changed": 1, "lost": 1, "new": 1}
    named = {pair.status: (pair.before, pair.after) for pair in found.pairs}
    assert (named["changed"], named["lost"], named["new"]) == ((7, 7), (4, None), (None, 4))


def test_models_of_other_seeds_have_few_filters_in_common(
    digits: Dataset, trained: fit.Fitted
) -> None:
    """Nothing is paired below what shuffled images reach."""
    other = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=9)
    found = matching.match(trained.model, other, "conv1", digits.splits["test"].images)
    assert min(pair.correlation or 1 for pair in found.pairs) > found.null
    assert "same" not in _statuses(found)


def test_networks_of_different_widths_leave_filters_over(digits: Dataset, prepared: object) -> None:
    """The first three of five filters: two are lost, or, the other way round, new."""
    changes = {"conv1_filters": 5, "conv2_filters": 2, "dense1_units": 4}
    wide, narrow = (
        networks.build(
            recipes.SPEC.model_copy(update=changes | {"conv1_filters": n}), (28, 28, 1), 10, 0
        )
        for n in (5, 3)
    )
    kernel, bias = wide.get_layer("conv1").get_weights()
    narrow.get_layer("conv1").set_weights([kernel[..., :3], bias[:3]])
    images = digits.splits["test"].images
    assert _statuses(matching.match(wide, narrow, "conv1", images)) == {"same": 3, "lost": 2}
    assert _statuses(matching.match(narrow, wide, "conv1", images)) == {"same": 3, "new": 2}


def test_maps_of_different_sizes_are_refused(digits: Dataset, trained: fit.Fitted) -> None:
    """Their positions are not the same places."""
    changes = {"conv1_kernel": 8}
    other = networks.build(recipes.SPEC.model_copy(update=changes), (28, 28, 1), 10, seed=0)
    with pytest.raises(ConfigError, match="layer conv1: maps of 9 x 9 and of 11 x 11 positions"):
        matching.match(trained.model, other, "conv1", digits.splits["test"].images)


def _small(**changes: int) -> Any:
    sizes = {"conv1_filters": 6, "conv2_filters": 4, "dense1_units": 4}
    settings = recipes.SPEC.model_copy(update=sizes | changes)
    return networks.build(settings, (28, 28, 1), 10, seed=0)


def test_models_that_take_unlike_numbers_of_images_at_once_are_matched(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wider layers do; the last batch is smaller."""
    monkeypatch.setattr(activations, "_LARGEST_OUTPUT", 4 * 28 * 28 * 60)
    wide, narrow = _small(conv1_filters=40), _small()
    sizes = {activations.batch_size(network, "conv1") for network in (wide, narrow)}
    assert len(sizes) == 2
    images = digits.splits["test"].images[: 2 * max(sizes) + 3]
    by_batch = matching.match(wide, narrow, "conv1", images)
    monkeypatch.undo()
    assert by_batch.null == pytest.approx(matching.match(wide, narrow, "conv1", images).null)


def test_the_order_of_the_images_does_not_matter(
    trained: fit.Fitted, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted by class or not, unrelated filters reach as much, and no status is another.

    Many batches: each has one class or two where the images are sorted.
    """
    monkeypatch.setattr(activations, "_LARGEST_OUTPUT", 4 * 25 * 17 * 17 * 20)
    test, other = digits.splits["test"], _copy(trained.model)
    kernel, bias = other.get_layer("conv1").get_weights()
    kernel[..., 7] = np.flip(kernel[..., 7])
    other.get_layer("conv1").set_weights([kernel, bias])
    orders = np.arange(len(test)), np.argsort(test.labels, kind="stable")
    found = [matching.match(trained.model, other, "conv1", test.images[order]) for order in orders]
    assert found[1].null == pytest.approx(found[0].null, abs=0.03)
    assert _statuses(found[0]) == _statuses(found[1])


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_a_model_is_the_same_as_itself_on_few_images(digits: Dataset, n: int) -> None:
    """Where there is one image nothing is unrelated."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    found = matching.match(network, network, "conv1", digits.splits["test"].images[:n])
    assert _statuses(found) == {"same": 25}
    assert (found.null == 0) == (n == 1)


def test_each_image_has_another_from_anywhere() -> None:
    """Each is another's once, and those of a batch come from all."""
    for n in range(2, 11):
        others = matching._others(n)
        assert sorted(others) == list(range(n))
        assert (others != np.arange(n)).all()
    assert (matching._others(2000)[:1000] >= 1000).mean() == pytest.approx(0.5, abs=0.1)
