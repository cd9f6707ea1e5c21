"""Filters: planted kinds are found, and every figure equals its formula."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.explain import filters
from cnn.progress import Progress
from cnn.train import fit, model, recipes
from tests.cnn.explain import oracle

pytestmark = pytest.mark.usefixtures("prepared")

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def described(trained: fit.Fitted, digits: Dataset) -> filters.Filters:
    """The filters of the trained model's conv1."""
    return filters.describe(trained.model, "conv1", digits)


@pytest.fixture(scope="module")
def responses(trained: fit.Fitted, digits: Dataset) -> NDArray[np.float64]:
    """Activations (n, y, x, filters) of the test images, by brute force."""
    kernel, bias = trained.model.get_layer("conv1").get_weights()
    return oracle.convolve(digits.splits["test"].images, kernel, bias, 2)


def _column(rows: Rows, name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows], np.float64)


def _planted(dataset: Dataset, n_filters: int = 6) -> Any:
    """Return a network with conv1 filters that are planted, and no bias.

    0 never fires; 1 is three times filter 2; 3 fires for bright images only; 4 is zero.
    """
    settings = recipes.SPEC.model_copy(
        update={"conv1_filters": n_filters, "conv_bias": False, "conv2_filters": 2}
    )
    network = model.build(settings, dataset.image_shape, len(dataset.class_names), seed=0)
    layer = network.get_layer("conv1")
    kernel = np.array(layer.kernel)
    if n_filters > 1:
        kernel[..., 0] = -np.abs(kernel[..., 0])
        kernel[..., 1] = 3 * kernel[..., 2]
        kernel[..., 3] = np.abs(kernel[..., 3])
        kernel[..., 4] = 0
    layer.set_weights([kernel])
    return network


def test_rows_name_layer_filter_and_split(described: filters.Filters) -> None:
    """One row a filter, in order; the kernels are the model's, filters first."""
    assert [(row["layer"], row["filter"], row["split"]) for row in described.rows] == [
        ("conv1", i, "test") for i in range(25)
    ]
    assert described.layer == "conv1"
    assert (described.kernels.shape, described.kernels.dtype) == ((25, 12, 12, 1), np.float32)


def test_kernels_and_their_norms_are_those_of_the_model(
    trained: fit.Fitted, described: filters.Filters
) -> None:
    """Sums over the raw weights of each filter."""
    kernel = np.float64(trained.model.get_layer("conv1").get_weights()[0])
    np.testing.assert_array_equal(described.kernels, kernel.transpose(3, 0, 1, 2))
    for i, row in enumerate(described.rows):
        weights = kernel[..., i].ravel()
        assert row["l1_norm"] == pytest.approx(sum(abs(w) for w in weights))
        assert row["l2_norm"] == pytest.approx(sum(w * w for w in weights) ** 0.5)
        assert row["mean_weight"] == pytest.approx(sum(weights) / 144)


def test_activity_equals_that_of_a_brute_force_convolution(
    described: filters.Filters, responses: NDArray[np.float64]
) -> None:
    """Share of active positions, largest and mean activation over all 257 test images."""
    rows = described.rows
    largest, means = responses.max(axis=(0, 1, 2)), responses.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(_column(rows, "max_activation"), largest, rtol=1e-4)
    np.testing.assert_allclose(_column(rows, "mean_activation"), means, rtol=1e-4)
    share = (responses > 0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(_column(rows, "fraction_active"), share, atol=1e-3)
    assert [row["dead"] for row in rows] == (share == 0).tolist()


def test_selectivity_and_sparsity_follow_their_formulas(
    described: filters.Filters, responses: NDArray[np.float64], digits: Dataset
) -> None:
    """Morcos et al. 2018 and Vinje and Gallant 2000, written out for each filter."""
    labels = digits.splits["test"].labels
    per_image = responses.mean(axis=(1, 2))
    for row, values in zip(described.rows, per_image.T, strict=True):
        if row["dead"]:
            continue
        means = [values[labels == label].mean() for label in range(10)]
        best = max(means)
        others = sum(mean for mean in means if mean != best) / 9
        assert row["selectivity"] == pytest.approx((best - others) / (best + others), rel=1e-3)
        assert row["preferred_label"] == means.index(best)
        n = len(values)
        sparseness = (1 - (values.sum() / n) ** 2 / (sum(values**2) / n)) / (1 - 1 / n)
        assert row["sparsity"] == pytest.approx(sparseness, rel=1e-3)
    assert sum(not row["dead"] for row in described.rows) > 20


def test_the_nearest_filter_has_the_largest_cosine(described: filters.Filters) -> None:
    """Compared with every other filter, one pair at a time."""
    flat = np.float64(described.kernels).reshape(25, -1)
    for i, row in enumerate(described.rows):
        cosines = {
            j: flat[i] @ flat[j] / np.sqrt((flat[i] @ flat[i]) * (flat[j] @ flat[j]))
            for j in range(25)
            if j != i
        }
        assert row["nearest_filter"] == max(cosines, key=lambda j: cosines[j])
        assert row["nearest_cosine"] == pytest.approx(max(cosines.values()))


@pytest.fixture(scope="module")
def planted(digits: Dataset, prepared: object) -> Rows:
    """Rows of a network with planted filters, on images that are black except in class 3."""
    test = digits.splits["test"]
    images = np.zeros_like(test.images)
    images[test.labels == 3] = 200
    dark = replace(digits, splits={**digits.splits, "test": replace(test, images=images)})
    return filters.describe(_planted(digits), "conv1", dark).rows


def test_a_filter_that_never_fires_is_dead_and_has_no_preference(planted: Rows) -> None:
    """Figures that are not defined are null, not 0 and not NaN."""
    dead = planted[0]
    assert dead["dead"] is True
    assert (dead["fraction_active"], dead["max_activation"], dead["mean_activation"]) == (0, 0, 0)
    assert dead["selectivity"] is dead["preferred_label"] is dead["sparsity"] is None
    assert planted[3]["dead"] is False


def test_a_filter_for_one_class_alone_has_selectivity_1(planted: Rows, digits: Dataset) -> None:
    """It prefers that class, and is as sparse as the class is rare."""
    row = planted[3]
    share = (digits.splits["test"].labels == 3).mean()
    assert row["selectivity"] == pytest.approx(1)
    assert row["preferred_label"] == 3
    assert row["fraction_active"] == pytest.approx(share)
    assert row["sparsity"] == pytest.approx((1 - share) / (1 - 1 / 257))


def test_filters_that_differ_in_size_only_are_duplicates(planted: Rows) -> None:
    """Each is the other's nearest, with a cosine of 1 that rounding does not lift above it."""
    assert (planted[1]["nearest_filter"], planted[2]["nearest_filter"]) == (2, 1)
    for row in planted[1:3]:
        assert row["nearest_cosine"] == pytest.approx(1)
        assert row["nearest_cosine"] <= 1


def test_a_kernel_of_zeros_is_nobodys_nearest(planted: Rows) -> None:
    """It has no direction: null for itself, and no other names it."""
    assert planted[4]["nearest_filter"] is planted[4]["nearest_cosine"] is None
    assert 4 not in [row["nearest_filter"] for row in planted]


def test_a_single_filter_has_no_nearest(digits: Dataset) -> None:
    """There is no other to compare it with."""
    (row,) = filters.describe(_planted(digits, n_filters=1), "conv1", digits).rows
    assert row["nearest_filter"] is row["nearest_cosine"] is None
    assert row["l2_norm"] > 0


def test_the_last_batch_counts_like_the_others(
    trained: fit.Fitted, digits: Dataset, described: filters.Filters
) -> None:
    """Test images five times over fill more than one batch and change no mean."""
    test = digits.splits["test"]
    many = test.take(np.tile(np.arange(len(test)), 5))
    dataset = replace(digits, splits={**digits.splits, "test": many})
    reports: list[Progress] = []
    rows = filters.describe(trained.model, "conv1", dataset, reports.append).rows
    for name in ("fraction_active", "max_activation", "mean_activation", "selectivity"):
        np.testing.assert_allclose(
            _column(rows, name), _column(described.rows, name), rtol=1e-9, err_msg=name
        )
    assert [(item.done, item.total) for item in reports] == [(1000, 1285), (1285, 1285)]


def test_classes_without_test_images_are_left_out(trained: fit.Fitted, digits: Dataset) -> None:
    """A class that does not occur is not taken for one that leaves every filter silent."""
    test = digits.splits["test"]
    few = test.take(np.flatnonzero(test.labels < 2))
    dataset = replace(digits, splits={**digits.splits, "test": few})
    kernel, bias = trained.model.get_layer("conv1").get_weights()
    per_image = oracle.convolve(few.images, kernel, bias, 2).mean(axis=(1, 2))
    zeros, ones = (per_image[few.labels == label].mean(axis=0) for label in (0, 1))
    rows = filters.describe(trained.model, "conv1", dataset).rows
    with np.errstate(invalid="ignore"):
        expected = np.abs(zeros - ones) / (zeros + ones)
    np.testing.assert_allclose(_column(rows, "selectivity"), expected, rtol=1e-3)
    assert {row["preferred_label"] for row in rows} <= {0, 1, None}


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_damaged_weights_are_refused(digits: Dataset, damage: float) -> None:
    """A kernel that is no number is not described as a filter that never fires."""
    network = _planted(digits)
    (kernel,) = network.get_layer("conv1").get_weights()
    kernel[0, 0, 0, 2] = damage
    network.get_layer("conv1").set_weights([kernel])
    with pytest.raises(ArtifactError, match="not finite"):
        filters.describe(network, "conv1", digits)
