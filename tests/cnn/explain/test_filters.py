"""Filters: every column equals its formula, and planted filters are described as what they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.explain import activations, filters
from cnn.explain.filters import Filters
from cnn.progress import Progress
from cnn.tables import parquet
from cnn.train import fit
from tests.cnn.explain import oracle, planted

pytestmark = pytest.mark.usefixtures("prepared")

Rows = list[dict[str, Any]]
Activations = NDArray[np.float64]


@pytest.fixture(scope="module", params=["conv1", "conv2"])
def layer(request: pytest.FixtureRequest) -> str:
    """Each convolution in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def described(trained: fit.Fitted, digits: Dataset, layer: str) -> Filters:
    """The filters of a layer of the trained model."""
    return filters.describe(trained.model, layer, digits)


@pytest.fixture(scope="module")
def responses(trained: fit.Fitted, digits: Dataset, layer: str) -> Activations:
    """Activations (n, y, x, filters) of the test images, by brute force."""
    return oracle.activations(trained.model, layer, digits.splits["test"].images)


def _column(rows: Rows, name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows], np.float64)


def _described(network: Any, layer: str, digits: Dataset, chosen: Any) -> Rows:
    """Return the rows on these test images alone."""
    few = digits.splits["test"].take(np.asarray(chosen))
    return filters.describe(network, layer, planted.with_test(digits, few)).rows


def test_kernels_and_their_norms_are_those_of_the_model(
    trained: fit.Fitted, described: Filters, layer: str
) -> None:
    """One row per filter, in order; sums over the raw weights of each filter."""
    n, rows = {"conv1": 25, "conv2": 64}[layer], described.rows
    expected = [(layer, i, "test") for i in range(n)]
    assert [(row["layer"], row["filter"], row["split"]) for row in rows] == expected
    assert described.layer == layer
    kernel = np.float64(trained.model.get_layer(layer).get_weights()[0])
    assert described.kernels.dtype == np.float32
    np.testing.assert_array_equal(described.kernels, kernel.transpose(3, 0, 1, 2))
    for i, row in enumerate(rows):
        weights = kernel[..., i].ravel()
        assert row["l1_norm"] == pytest.approx(sum(abs(w) for w in weights))
        assert row["l2_norm"] == pytest.approx(sum(w * w for w in weights) ** 0.5)
        assert row["mean_weight"] == pytest.approx(sum(weights) / len(weights))


def test_rows_have_every_column_of_the_table_in_its_type(
    described: Filters, tmp_path: Path
) -> None:
    """They are written as they are; values that are not defined are null, none is NaN."""
    rows = described.rows
    parquet.write_rows(tmp_path / "filters.parquet", "filters", rows)
    read = parquet.read(tmp_path / "filters.parquet").drop_columns("schema_version").to_pylist()
    assert read == [{name: row[name] for name in read[0]} for row in rows]
    assert set(read[0]) == set(rows[0])
    assert len(rows[0]["histogram"]) == 20
    assert len(rows[0]["class_means"]) == 10


def test_activity_equals_that_of_a_brute_force_convolution(
    described: Filters, responses: Activations
) -> None:
    """Share of active positions, largest and mean activation over all 257 test images."""
    rows = described.rows
    largest, means = responses.max(axis=(0, 1, 2)), responses.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(_column(rows, "max_activation"), largest, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(_column(rows, "mean_activation"), means, rtol=1e-4, atol=1e-6)
    share = (responses > 0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(_column(rows, "fraction_active"), share, atol=1e-3)
    assert [row["dead"] for row in rows] == (share == 0).tolist()
    assert sum(not row["dead"] for row in rows) > 20


def test_quantiles_and_histogram_equal_those_of_all_activations_at_once(
    described: Filters, responses: Activations
) -> None:
    """Quantiles to 1/128; as many counts as positions fire; few of them in another bin."""
    for f, row in enumerate(described.rows):
        flat = responses[..., f].ravel()
        for name, level in (("median", 0.5), ("p90", 0.9), ("p99", 0.99)):
            exact, found = np.quantile(flat, level), row[f"activation_{name}"]
            assert isinstance(found, float)
            assert exact * (1 - 1e-3) - 1e-4 <= found <= exact * (1 + 1 / 128 + 1e-3) + 1e-4
        assert sum(row["histogram"]) == round(row["fraction_active"] * len(flat))
        counts, _ = np.histogram(flat[flat > 0], 20, (0, flat.max() or 1))
        assert np.abs(np.cumsum(row["histogram"]) - counts.cumsum()).max() <= 0.08 * len(flat)


def test_selectivity_and_sparsity_follow_their_formulas(
    described: Filters, responses: Activations, digits: Dataset
) -> None:
    """Morcos et al. 2018 and Vinje and Gallant 2000, written out for each filter."""
    labels = digits.splits["test"].labels
    per_image = responses.mean(axis=(1, 2))
    for row, values in zip(described.rows, per_image.T, strict=True):
        if row["dead"]:
            continue
        means = [values[labels == label].mean() for label in range(10)]
        assert row["class_means"] == pytest.approx(means, rel=1e-3, abs=1e-6)
        best = max(means)
        others = sum(mean for mean in means if mean != best) / 9
        assert row["selectivity"] == pytest.approx((best - others) / (best + others), rel=1e-3)
        assert row["preferred_label"] == means.index(best)
        assert row["sparsity"] == pytest.approx(oracle.sparseness(values), rel=1e-3)
    expected = np.mean([oracle.sparseness(image) for image in per_image])
    found = _column(described.rows, "population_sparsity")
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_nearest_filter_has_the_largest_cosine(described: Filters) -> None:
    """Compared with every other filter."""
    flat = np.float64(described.kernels).reshape(len(described.rows), -1)
    lengths = np.sqrt((flat**2).sum(axis=1))
    cosines = flat @ flat.T / (lengths[:, None] * lengths) - 2 * np.eye(len(flat))
    for row, of_filter in zip(described.rows, cosines, strict=True):
        assert row["nearest_filter"] == of_filter.argmax()
        assert row["nearest_cosine"] == pytest.approx(of_filter.max())


def test_the_correlated_filter_has_the_largest_correlation(
    described: Filters, responses: Activations
) -> None:
    """Pearson's, over all positions of all images, among the filters that fire at all."""
    flat = responses.reshape(-1, responses.shape[-1])
    alive = [row["filter"] for row in described.rows if not row["dead"]]
    correlations = np.corrcoef(flat[:, alive].T) - 2 * np.eye(len(alive))
    for f, of_filter in zip(alive, correlations, strict=True):
        row = described.rows[f]
        found = of_filter[alive.index(row["correlated_filter"])]
        assert row["correlation"] == pytest.approx(of_filter.max(), abs=1e-4)
        assert found == pytest.approx(of_filter.max(), abs=1e-4)
    dead = [row for row in described.rows if row["dead"]]
    assert all(row["correlated_filter"] is row["correlation"] is None for row in dead)


def test_smoothness_is_morans_i_of_the_kernel(described: Filters) -> None:
    """Written out with a matrix of which weights are neighbours: side by side or one above."""
    for kernel, row in zip(described.kernels[:8], described.rows, strict=False):
        assert row["smoothness"] == pytest.approx(_morans_i(np.float64(kernel)))


def _morans_i(kernel: NDArray[np.float64]) -> float:
    """Return N / W * sum_ij w_ij z_i z_j / sum_i z_i^2; each channel has its own mean."""
    places = list(np.ndindex(*kernel.shape))
    z = np.array([kernel[y, x, c] - kernel[:, :, c].mean() for y, x, c in places])
    y, x, c = np.array(places).T
    apart = np.abs(y[:, None] - y) + np.abs(x[:, None] - x)
    w = ((apart == 1) & (c[:, None] == c)).astype(float)
    return float(len(z) / w.sum() * (z @ w @ z) / (z @ z))


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
def test_smoothness_tells_smooth_noisy_and_alternating_kernels_apart(
    rng: np.random.Generator, scale: float
) -> None:
    """A wide bump has nearly 1, noise about 0, a checkerboard -1, equal weights nothing."""
    y, x = np.mgrid[:12, :12]
    kernels = np.stack(
        [
            np.exp(-((y - 5.5) ** 2 + (x - 5.5) ** 2) / 40),
            rng.normal(0, 1, (12, 12)),
            (y + x) % 2 * 2.0 - 1,
            np.full((12, 12), 0.1),
            (y % 2) * 1.0,
        ]
    )
    found = filters.smoothness(np.float32(scale * kernels)[..., None])
    smooth, noisy, checkered, equal, striped = found
    assert smooth > 0.85
    assert abs(noisy) < 0.15
    assert checkered == pytest.approx(-1)
    assert np.isnan(equal)
    assert striped == pytest.approx(0)
    assert np.isnan(filters.smoothness(np.float32(rng.normal(0, 1, (3, 1, 1, 5))))).all()
    channels = np.broadcast_to(np.float32([0.1, 0.7, -3]), (1, 6, 6, 3))  # each is constant
    assert np.isnan(filters.smoothness(channels)).all()


def _planted(layer: str = "conv1", n_filters: int = 6) -> Any:
    """Return a network without biases whose layer has planted filters.

    0 never fires; 1 is three times filter 2; 3 fires for bright images only; 4 is zero.
    """
    sizes = {"conv2_filters": 2, f"{layer}_filters": n_filters}
    network = planted.build(conv_bias=False, **sizes)
    with planted.weights(network, layer) as (kernel,):
        if n_filters > 1:
            kernel[..., 0] = -np.abs(kernel[..., 0])
            kernel[..., 1] = 3 * kernel[..., 2]
            kernel[..., 3] = np.abs(kernel[..., 3])
            kernel[..., 4] = 0
    return network


@pytest.fixture(scope="module")
def planted_rows(digits: Dataset, prepared: object, layer: str) -> Rows:
    """Rows of a network with planted filters, on images that are black except in class 3."""
    test = digits.splits["test"]
    dark = planted.with_images(digits, np.zeros_like(test.images)).splits["test"]
    dark.labels[:] = test.labels
    dark.images[test.labels == 3] = 200
    return filters.describe(_planted(layer), layer, planted.with_test(digits, dark)).rows


def test_a_filter_that_never_fires_is_dead_and_has_no_preference(planted_rows: Rows) -> None:
    """Values that are not defined are null, not 0 and not NaN."""
    dead = planted_rows[0]
    assert dead["dead"] is True
    assert (dead["fraction_active"], dead["max_activation"], dead["mean_activation"]) == (0, 0, 0)
    assert dead["activation_median"] == dead["activation_p99"] == 0
    assert dead["histogram"] == [0] * 20
    assert dead["class_means"] == [0] * 10
    assert dead["selectivity"] is dead["preferred_label"] is dead["sparsity"] is None
    assert dead["correlated_filter"] is dead["correlation"] is None
    assert planted_rows[3]["dead"] is False


def test_a_filter_for_a_single_class_has_selectivity_1(planted_rows: Rows, digits: Dataset) -> None:
    """It prefers that class, and is as sparse as the class is rare."""
    row = planted_rows[3]
    share = (digits.splits["test"].labels == 3).mean()
    assert row["selectivity"] == pytest.approx(1)
    assert row["preferred_label"] == 3
    assert [i for i, mean in enumerate(row["class_means"]) if mean] == [3]
    assert row["fraction_active"] == pytest.approx(share)
    assert row["sparsity"] == pytest.approx((1 - share) / (1 - 1 / 257), abs=1e-2)


def test_a_kernel_of_zeros_has_no_nearest_and_is_nearest_to_none(planted_rows: Rows) -> None:
    """It has no direction."""
    assert planted_rows[4]["nearest_filter"] is planted_rows[4]["nearest_cosine"] is None
    assert planted_rows[4]["smoothness"] is None
    assert 4 not in [row["nearest_filter"] for row in planted_rows]


def test_filters_that_differ_only_in_scale_are_duplicates(digits: Dataset, layer: str) -> None:
    """Each is the other's nearest and most correlated; rounding lifts neither value above 1."""
    rows = filters.describe(_planted(layer), layer, digits).rows
    for row, other in ((rows[1], 2), (rows[2], 1)):
        assert not row["dead"]
        assert row["nearest_filter"] == row["correlated_filter"] == other
        assert row["nearest_cosine"] == pytest.approx(1)
        assert row["correlation"] == pytest.approx(1)
        assert max(row["nearest_cosine"], row["correlation"]) <= 1


def test_a_single_filter_has_no_nearest(digits: Dataset) -> None:
    """There is no other filter to compare it with."""
    (row,) = filters.describe(_planted(n_filters=1), "conv1", digits).rows
    assert row["nearest_filter"] is row["nearest_cosine"] is None
    assert row["correlated_filter"] is row["correlation"] is None
    assert row["population_sparsity"] is None
    assert row["l2_norm"] > 0


def test_a_filter_with_only_a_bias_fires_everywhere(digits: Dataset, layer: str) -> None:
    """It is not selective, and correlates with no other filter."""
    network = planted.build()
    with planted.weights(network, layer) as (kernel, bias):
        kernel[..., 5], bias[5] = 0, 0.1
    rows = filters.describe(network, layer, digits).rows
    row, value = rows[5], float(np.float32(0.1))
    assert row["dead"] is False
    assert (row["fraction_active"], row["max_activation"]) == (1, value)
    assert row["activation_median"] == row["activation_p99"] == value
    assert row["histogram"] == [0] * 19 + [257 * 81]
    assert 0 <= row["selectivity"] <= 1e-9
    assert 0 <= row["sparsity"] <= 1e-9
    assert row["correlated_filter"] is row["correlation"] is None
    assert 5 not in [other["correlated_filter"] for other in rows]


def test_one_image_is_described_without_comparing_images(
    trained: fit.Fitted, digits: Dataset, responses: Activations, layer: str
) -> None:
    """Sparsity over images and selectivity among classes need a second one."""
    rows, values = _described(trained.model, layer, digits, [7]), responses[7]
    label = int(digits.splits["test"].labels[7])
    largest = values.max(axis=(0, 1))
    np.testing.assert_allclose(_column(rows, "max_activation"), largest, rtol=1e-4, atol=1e-6)
    assert {row["sparsity"] for row in rows} == {row["selectivity"] for row in rows} == {None}
    assert {row["preferred_label"] for row in rows} <= {label, None}
    expected = oracle.sparseness(values.mean(axis=(0, 1)))
    assert rows[0]["population_sparsity"] == pytest.approx(expected, rel=1e-3)
    assert [mean is None for mean in rows[0]["class_means"]] == [i != label for i in range(10)]


def test_the_batch_size_changes_nothing(
    trained: fit.Fitted,
    digits: Dataset,
    described: Filters,
    layer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """50 images per batch, the last one of 7: the same values, up to rounding in float32."""
    monkeypatch.setattr(activations, "_LARGEST_BATCH", 50)
    reports: list[Progress] = []
    rows = filters.describe(trained.model, layer, digits, reports.append).rows
    assert [(item.done, item.total) for item in reports] == [
        (done, 257) for done in (50, 100, 150, 200, 250, 257)
    ]
    for name in set(rows[0]) - {"layer", "split", "histogram", "class_means"}:
        expected = _column(described.rows, name)
        tolerance = 0.01 if name.startswith("activation") else 1e-5
        np.testing.assert_allclose(_column(rows, name), expected, rtol=tolerance, err_msg=name)
    histograms = (np.array([row["histogram"] for row in some]) for some in (rows, described.rows))
    assert np.abs(np.subtract(*histograms)).max() <= 5
    assert sum(row["preferred_label"] is not None for row in rows) > 20


def test_classes_without_test_images_are_left_out(
    trained: fit.Fitted, digits: Dataset, responses: Activations, layer: str
) -> None:
    """A class without images differs from a class that no filter responds to."""
    labels = digits.splits["test"].labels
    rows = _described(trained.model, layer, digits, np.flatnonzero(labels < 2))
    per_image = responses.mean(axis=(1, 2))
    zeros, ones = (per_image[labels == label].mean(axis=0) for label in (0, 1))
    with np.errstate(invalid="ignore"):
        expected = np.abs(zeros - ones) / (zeros + ones)
    np.testing.assert_allclose(_column(rows, "selectivity"), expected, rtol=1e-3)
    assert {row["preferred_label"] for row in rows} <= {0, 1, None}
    assert all(row["class_means"][2:] == [None] * 8 for row in rows)
    np.testing.assert_allclose([row["class_means"][1] for row in rows], ones, rtol=1e-3)


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_damaged_weights_are_refused(digits: Dataset, damage: float) -> None:
    """A kernel with a NaN is not described as a filter that never fires."""
    network = _planted()
    with planted.weights(network, "conv1") as (kernel,):
        kernel[0, 0, 0, 2] = damage
    with pytest.raises(ArtifactError, match="not finite"):
        filters.describe(network, "conv1", digits)
