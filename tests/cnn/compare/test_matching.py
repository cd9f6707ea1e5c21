"""Matching finds permuted filters, and does not pair unrelated ones."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from cnn.compare import matching
from cnn.data.dataset import Dataset
from cnn.errors import ConfigError
from cnn.explain import activations
from cnn.train import fit
from tests.cnn.explain import planted

pytestmark = pytest.mark.usefixtures("prepared")


def _small(**changes: int) -> Any:
    return planted.build(conv2_filters=4, dense1_units=4, **changes)


def _permuted(network: Any, orders: dict[str, Any]) -> Any:
    """Return a copy with the filters of conv1 and conv2 in other orders; it computes the same."""
    copy = planted.copied(network)
    with planted.weights(copy, "conv2") as (kernel, _):
        kernel[:] = kernel[:, :, orders["conv1"]]
    for layer, order in orders.items():
        with planted.weights(copy, layer) as (kernel, bias):
            kernel[:], bias[:] = kernel[..., order], bias[order]
    return copy


def _statuses(found: matching.Match) -> dict[str, int]:
    return dict(Counter(pair.status for pair in found.pairs))


@pytest.mark.parametrize(("layer", "n"), [("conv1", 25), ("conv2", 64)])
def test_every_permuted_filter_is_found(
    digits: Dataset, rng: np.random.Generator, layer: str, n: int
) -> None:
    """25 of 25, and 64 of 64, in a network whose filters all fire, with a correlation of 1."""
    network = planted.build()
    orders = {"conv1": rng.permutation(25), "conv2": rng.permutation(64)}
    found = matching.match(network, _permuted(network, orders), layer, digits.splits["test"].images)
    assert _statuses(found) == {"same": n}
    assert [pair.before for pair in found.pairs] == list(range(n))
    assert [orders[layer][pair.after] for pair in found.pairs] == list(range(n))
    assert min(pair.correlation or 0 for pair in found.pairs) > 0.9999
    assert 0 < found.null < 0.95


def test_filters_that_never_fire_are_paired_with_each_other(
    trained: fit.Fitted, digits: Dataset, rng: np.random.Generator
) -> None:
    """They are neither lost nor new, and all others are still matched."""
    network = planted.copied(trained.model)
    with planted.weights(network, "conv1") as (_, bias):
        bias[[3, 8]] = -1000
    orders = {"conv1": rng.permutation(25), "conv2": np.arange(64)}
    images = digits.splits["test"].images
    found = matching.match(network, _permuted(network, orders), "conv1", images)
    assert _statuses(found) == {"same": 23, "dead": 2}
    dead = [pair for pair in found.pairs if pair.status == "dead"]
    assert {pair.before for pair in dead} == {3, 8}
    assert {orders["conv1"][pair.after] for pair in dead} == {3, 8}
    assert {pair.correlation for pair in dead} == {None}


def test_lost_new_and_changed_filters_are_told_apart(
    trained: fit.Fitted, digits: Dataset, rng: np.random.Generator
) -> None:
    """One filter is replaced by noise, noise is added to another, the others stay."""
    other = planted.copied(trained.model)
    with planted.weights(other, "conv1") as (kernel, _):
        kernel[..., 4] = rng.normal(0, 0.05, (12, 12, 1))
        kernel[..., 7] += rng.normal(0, 0.6 * np.abs(kernel[..., 7]).mean(), (12, 12, 1))
    found = matching.match(trained.model, other, "conv1", digits.splits["test"].images)
    assert _statuses(found) == {"same": 23, "changed": 1, "lost": 1, "new": 1}
    named = {pair.status: (pair.before, pair.after) for pair in found.pairs}
    assert (named["changed"], named["lost"], named["new"]) == ((7, 7), (4, None), (None, 4))


def test_an_unrelated_model_has_no_filter_in_common(digits: Dataset, trained: fit.Fitted) -> None:
    """No pair has a correlation below the one that unrelated filters reach."""
    other = planted.build(seed=9)
    found = matching.match(trained.model, other, "conv1", digits.splits["test"].images)
    assert min(pair.correlation or 1 for pair in found.pairs) > found.null
    assert "same" not in _statuses(found)


def test_layers_of_different_widths_have_lost_or_new_filters(digits: Dataset) -> None:
    """Three of five filters are the same: two are lost or, the other way round, new."""
    wide, narrow = _small(conv1_filters=5), _small(conv1_filters=3)
    kernel, bias = wide.get_layer("conv1").get_weights()
    narrow.get_layer("conv1").set_weights([kernel[..., :3], bias[:3]])
    images = digits.splits["test"].images
    assert _statuses(matching.match(wide, narrow, "conv1", images)) == {"same": 3, "lost": 2}
    assert _statuses(matching.match(narrow, wide, "conv1", images)) == {"same": 3, "new": 2}


def test_maps_of_different_sizes_are_refused(digits: Dataset, trained: fit.Fitted) -> None:
    """Their positions do not correspond."""
    other = planted.build(conv1_kernel=8)
    with pytest.raises(ConfigError, match="layer conv1: feature maps of 9 x 9 and 11 x 11 positio"):
        matching.match(trained.model, other, "conv1", digits.splits["test"].images)


def test_models_of_different_batch_sizes_are_matched(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wider layers have smaller batches; the last batch is not full."""
    monkeypatch.setattr(activations, "_LARGEST_OUTPUT", 4 * 28 * 28 * 60)
    wide, narrow = _small(conv1_filters=40), _small(conv1_filters=6)
    sizes = {activations.batch_size(network, "conv1") for network in (wide, narrow)}
    assert len(sizes) == 2
    images = digits.splits["test"].images[: 2 * max(sizes) + 3]
    by_batch = matching.match(wide, narrow, "conv1", images)
    monkeypatch.undo()
    assert by_batch.null == pytest.approx(matching.match(wide, narrow, "conv1", images).null)


def test_the_order_of_the_images_does_not_matter(
    trained: fit.Fitted, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted by class or not, unrelated filters reach the same, and every status is the same.

    There are many batches: where the images are sorted, each has only one or two classes.
    """
    monkeypatch.setattr(activations, "_LARGEST_OUTPUT", 4 * 25 * 17 * 17 * 20)
    test, other = digits.splits["test"], planted.copied(trained.model)
    with planted.weights(other, "conv1") as (kernel, _):
        kernel[..., 7] = np.flip(kernel[..., 7])
    orders = np.arange(len(test)), np.argsort(test.labels, kind="stable")
    found = [matching.match(trained.model, other, "conv1", test.images[order]) for order in orders]
    assert found[1].null == pytest.approx(found[0].null, abs=0.03)
    assert _statuses(found[0]) == _statuses(found[1])


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_a_model_matches_itself_on_few_images(digits: Dataset, n: int) -> None:
    """A single image has no other image for unrelated filters."""
    network = planted.build()
    found = matching.match(network, network, "conv1", digits.splits["test"].images[:n])
    assert _statuses(found) == {"same": 25}
    assert (found.null == 0) == (n == 1)


def test_each_image_is_compared_with_a_different_one() -> None:
    """Each is used once, and those for one batch come from all images."""
    for n in range(2, 11):
        others = matching._others(n)
        assert sorted(others) == list(range(n))
        assert (others != np.arange(n)).all()
    assert (matching._others(2000)[:1000] >= 1000).mean() == pytest.approx(0.5, abs=0.1)
