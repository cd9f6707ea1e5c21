"""Filters: planted kinds are found, and every figure equals its formula."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.explain import activations, filters
from cnn.progress import Progress
from cnn.tables import parquet
from cnn.train import fit, networks, recipes
from tests.cnn.explain import oracle

pytestmark = pytest.mark.usefixtures("prepared")

Rows = list[dict[str, Any]]


LAYERS = ("conv1", "conv2")
every_layer = pytest.mark.parametrize("layer", LAYERS)


@pytest.fixture(scope="module")
def described(trained: fit.Fitted, digits: Dataset) -> dict[str, filters.Filters]:
    """The filters of the trained model's layers."""
    return {layer: filters.describe(trained.model, layer, digits) for layer in LAYERS}


@pytest.fixture(scope="module")
def responses(trained: fit.Fitted, digits: Dataset) -> dict[str, NDArray[np.float64]]:
    """Activations (n, y, x, filters) of the test images, by brute force."""
    images = digits.splits["test"].images
    return {layer: oracle.activations(trained.model, layer, images) for layer in LAYERS}


def _column(rows: Rows, name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows], np.float64)


def _planted(dataset: Dataset, layer: str = "conv1", n_filters: int = 6) -> Any:
    """Return a network whose layer has planted filters, and no bias.

    0 never fires; 1 is three times filter 2; 3 fires for bright images only; 4 is zero.
    """
    settings = recipes.SPEC.model_copy(
        update={"conv_bias": False, "conv2_filters": 2, f"{layer}_filters": n_filters}
    )
    network = networks.build(settings, dataset.image_shape, len(dataset.class_names), seed=0)
    (kernel,) = network.get_layer(layer).get_weights()
    if n_filters > 1:
        kernel[..., 0] = -np.abs(kernel[..., 0])
        kernel[..., 1] = 3 * kernel[..., 2]
        kernel[..., 3] = np.abs(kernel[..., 3])
        kernel[..., 4] = 0
    network.get_layer(layer).set_weights([kernel])
    return network


def _present(row: dict[str, Any], name: str) -> float:
    """Return a figure that must be there, as a plain number."""
    assert isinstance(row[name], float)
    return row[name]


@pytest.mark.parametrize(
    ("layer", "shape"), [("conv1", (25, 12, 12, 1)), ("conv2", (64, 5, 5, 25))]
)
def test_rows_name_layer_filter_and_split(
    described: dict[str, filters.Filters], layer: str, shape: tuple[int, ...]
) -> None:
    """One row a filter, in order; the kernels are the model's, filters first."""
    found = described[layer]
    assert [(row["layer"], row["filter"], row["split"]) for row in found.rows] == [
        (layer, i, "test") for i in range(shape[0])
    ]
    assert found.layer == layer
    assert (found.kernels.shape, found.kernels.dtype) == (shape, np.float32)


@every_layer
def test_every_column_of_the_table_is_there_in_its_type(
    described: dict[str, filters.Filters], layer: str, tmp_path: Path
) -> None:
    """Rows are written as they are; figures that are not defined are null, none is NaN."""
    rows = described[layer].rows
    parquet.write_rows(tmp_path / "filters.parquet", "filters", rows)
    read = parquet.read(tmp_path / "filters.parquet").drop_columns("schema_version").to_pylist()
    assert read == [{name: row[name] for name in read[0]} for row in rows]
    assert set(read[0]) == set(rows[0])
    assert len(rows[0]["histogram"]) == 20
    assert len(rows[0]["class_means"]) == 10


@every_layer
def test_kernels_and_their_norms_are_those_of_the_model(
    trained: fit.Fitted, described: dict[str, filters.Filters], layer: str
) -> None:
    """Sums over the raw weights of each filter."""
    kernel = np.float64(trained.model.get_layer(layer).get_weights()[0])
    np.testing.assert_array_equal(described[layer].kernels, kernel.transpose(3, 0, 1, 2))
    for i, row in enumerate(described[layer].rows):
        weights = kernel[..., i].ravel()
        assert row["l1_norm"] == pytest.approx(sum(abs(w) for w in weights))
        assert row["l2_norm"] == pytest.approx(sum(w * w for w in weights) ** 0.5)
        assert row["mean_weight"] == pytest.approx(sum(weights) / len(weights))


@every_layer
def test_activity_equals_that_of_a_brute_force_convolution(
    described: dict[str, filters.Filters], responses: dict[str, NDArray[np.float64]], layer: str
) -> None:
    """Share of active positions, largest and mean activation over all 257 test images."""
    rows, values = described[layer].rows, responses[layer]
    largest, means = values.max(axis=(0, 1, 2)), values.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(_column(rows, "max_activation"), largest, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(_column(rows, "mean_activation"), means, rtol=1e-4, atol=1e-6)
    share = (values > 0).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(_column(rows, "fraction_active"), share, atol=1e-3)
    assert [row["dead"] for row in rows] == (share == 0).tolist()
    assert sum(not row["dead"] for row in rows) > 20


@every_layer
def test_quantiles_and_histogram_equal_those_of_all_activations_at_once(
    described: dict[str, filters.Filters], responses: dict[str, NDArray[np.float64]], layer: str
) -> None:
    """Quantiles to 1/128; as many counts as positions fire; few of them in another bin."""
    for f, row in enumerate(described[layer].rows):
        flat = responses[layer][..., f].ravel()
        for name, level in (("median", 0.5), ("p90", 0.9), ("p99", 0.99)):
            exact, found = np.quantile(flat, level), _present(row, f"activation_{name}")
            assert exact * (1 - 1e-3) - 1e-4 <= found <= exact * (1 + 1 / 128 + 1e-3) + 1e-4
        assert sum(row["histogram"]) == round(row["fraction_active"] * len(flat))
        wanted, _ = np.histogram(flat[flat > 0], 20, (0, flat.max() or 1))
        assert np.abs(np.cumsum(row["histogram"]) - wanted.cumsum()).max() <= 0.08 * len(flat)


@every_layer
def test_selectivity_and_sparsity_follow_their_formulas(
    described: dict[str, filters.Filters],
    responses: dict[str, NDArray[np.float64]],
    digits: Dataset,
    layer: str,
) -> None:
    """Morcos et al. 2018 and Vinje and Gallant 2000, written out for each filter."""
    labels = digits.splits["test"].labels
    per_image = responses[layer].mean(axis=(1, 2))
    for row, values in zip(described[layer].rows, per_image.T, strict=True):
        if row["dead"]:
            continue
        means = [values[labels == label].mean() for label in range(10)]
        assert row["class_means"] == pytest.approx(means, rel=1e-3, abs=1e-6)
        best = max(means)
        others = sum(mean for mean in means if mean != best) / 9
        assert row["selectivity"] == pytest.approx((best - others) / (best + others), rel=1e-3)
        assert row["preferred_label"] == means.index(best)
        assert row["sparsity"] == pytest.approx(_sparseness(values), rel=1e-3)
    wanted = np.mean([_sparseness(image) for image in per_image])
    found = _column(described[layer].rows, "population_sparsity")
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def _sparseness(values: NDArray[np.float64]) -> float:
    n = len(values)
    return float((1 - (values.sum() / n) ** 2 / (sum(values**2) / n)) / (1 - 1 / n))


@every_layer
def test_the_nearest_filter_has_the_largest_cosine(
    described: dict[str, filters.Filters], layer: str
) -> None:
    """Compared with every other filter, one pair at a time."""
    found = described[layer]
    flat = np.float64(found.kernels).reshape(len(found.rows), -1)
    for i, row in enumerate(found.rows):
        cosines = {
            j: flat[i] @ flat[j] / np.sqrt((flat[i] @ flat[i]) * (flat[j] @ flat[j]))
            for j in range(len(flat))
            if j != i
        }
        assert row["nearest_filter"] == max(cosines, key=lambda j: cosines[j])
        assert row["nearest_cosine"] == pytest.approx(max(cosines.values()))


@every_layer
def test_the_correlated_filter_fires_most_alike(
    described: dict[str, filters.Filters], responses: dict[str, NDArray[np.float64]], layer: str
) -> None:
    """Pearson's correlation over all positions of all images, of those that fire at all."""
    flat = responses[layer].reshape(-1, responses[layer].shape[-1])
    alive = [row["filter"] for row in described[layer].rows if not row["dead"]]
    wanted = np.corrcoef(flat[:, alive].T) - 2 * np.eye(len(alive))
    for row in described[layer].rows:
        if row["dead"]:
            assert row["correlated_filter"] is row["correlation"] is None
            continue
        of_filter = wanted[alive.index(row["filter"])]
        assert row["correlation"] == pytest.approx(of_filter.max(), abs=1e-4)
        found = of_filter[alive.index(row["correlated_filter"])]
        assert found == pytest.approx(of_filter.max(), abs=1e-4)


@every_layer
def test_smoothness_is_morans_i_of_the_kernel(
    described: dict[str, filters.Filters], layer: str
) -> None:
    """Written out with a matrix that says which weights are neighbours: beside or above."""
    for kernel, row in zip(described[layer].kernels[:8], described[layer].rows, strict=False):
        assert row["smoothness"] == pytest.approx(_morans_i(np.float64(kernel)))


def _morans_i(kernel: NDArray[np.float64]) -> float:
    """Return N / W * sum_ij w_ij z_i z_j / sum_i z_i^2; each channel has its own mean."""
    places = list(np.ndindex(*kernel.shape))
    z = np.array([kernel[y, x, c] - kernel[:, :, c].mean() for y, x, c in places])
    y, x, c = np.array(places).T
    apart = np.abs(y[:, None] - y) + np.abs(x[:, None] - x)
    w = ((apart == 1) & (c[:, None] == c)).astype(float)
    return float(len(z) / w.sum() * (z @ w @ z) / (z @ z))


def test_smooth_noisy_and_alternating_kernels_are_told_apart(rng: np.random.Generator) -> None:
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
    smooth, noisy, checkered, equal, striped = filters.smoothness(np.float32(kernels)[..., None])
    assert smooth > 0.85
    assert abs(noisy) < 0.15
    assert checkered == pytest.approx(-1)
    assert np.isnan(equal)
    assert striped == pytest.approx(0)
    assert np.isnan(filters.smoothness(np.float32(rng.normal(0, 1, (3, 1, 1, 5))))).all()


def test_smoothness_does_not_take_channels_for_neighbours(rng: np.random.Generator) -> None:
    """A step from channel to channel is no edge: each is smooth in itself, or noise."""
    y, _ = np.mgrid[:6, :6]
    ramps = np.stack([y, -y, y + 50], axis=-1)[None].astype(np.float32)
    assert filters.smoothness(ramps)[0] == pytest.approx(_morans_i(np.float64(y)[..., None]))
    flat = np.broadcast_to(np.float32([0.1, 0.7, -3]), (1, 6, 6, 3))
    assert np.isnan(filters.smoothness(flat)).all()


@pytest.fixture(scope="module", params=LAYERS)
def planted(digits: Dataset, prepared: object, request: pytest.FixtureRequest) -> Rows:
    """Rows of a network with planted filters, on images that are black except in class 3."""
    test = digits.splits["test"]
    images = np.zeros_like(test.images)
    images[test.labels == 3] = 200
    dark = replace(digits, splits={**digits.splits, "test": replace(test, images=images)})
    return filters.describe(_planted(digits, request.param), request.param, dark).rows


def test_a_filter_that_never_fires_is_dead_and_has_no_preference(planted: Rows) -> None:
    """Figures that are not defined are null, not 0 and not NaN."""
    dead = planted[0]
    assert dead["dead"] is True
    assert (dead["fraction_active"], dead["max_activation"], dead["mean_activation"]) == (0, 0, 0)
    assert dead["activation_median"] == dead["activation_p99"] == 0
    assert dead["histogram"] == [0] * 20
    assert dead["class_means"] == [0] * 10
    assert dead["selectivity"] is dead["preferred_label"] is dead["sparsity"] is None
    assert dead["correlated_filter"] is dead["correlation"] is None
    assert planted[3]["dead"] is False


def test_a_filter_for_one_class_alone_has_selectivity_1(planted: Rows, digits: Dataset) -> None:
    """It prefers that class, and is as sparse as the class is rare."""
    row = planted[3]
    share = (digits.splits["test"].labels == 3).mean()
    assert row["selectivity"] == pytest.approx(1)
    assert row["preferred_label"] == 3
    assert [i for i, mean in enumerate(row["class_means"]) if mean] == [3]
    assert row["fraction_active"] == pytest.approx(share)
    assert row["sparsity"] == pytest.approx((1 - share) / (1 - 1 / 257), abs=1e-2)


def test_filters_that_differ_in_size_only_are_duplicates(digits: Dataset) -> None:
    """Each is the other's nearest, with a cosine of 1 that rounding does not lift above it.

    They fire alike too.
    """
    for layer in LAYERS:
        rows = filters.describe(_planted(digits, layer), layer, digits).rows
        for row, other in ((rows[1], 2), (rows[2], 1)):
            assert not row["dead"]
            assert row["nearest_filter"] == row["correlated_filter"] == other
            assert row["nearest_cosine"] == pytest.approx(1)
            assert row["correlation"] == pytest.approx(1)
            assert max(row["nearest_cosine"], row["correlation"]) <= 1


def test_a_kernel_of_zeros_is_nobodys_nearest(planted: Rows) -> None:
    """It has no direction: null for itself, and no other names it."""
    assert planted[4]["nearest_filter"] is planted[4]["nearest_cosine"] is None
    assert planted[4]["smoothness"] is None
    assert 4 not in [row["nearest_filter"] for row in planted]


def test_a_single_filter_has_no_nearest(digits: Dataset) -> None:
    """There is no other to compare it with, nor to share the work with."""
    (row,) = filters.describe(_planted(digits, n_filters=1), "conv1", digits).rows
    assert row["nearest_filter"] is row["nearest_cosine"] is None
    assert row["correlated_filter"] is row["correlation"] is None
    assert row["population_sparsity"] is None
    assert row["l2_norm"] > 0


@every_layer
def test_a_filter_that_is_its_bias_alone_is_on_everywhere(digits: Dataset, layer: str) -> None:
    """It says nothing of any image: it is not selective, and correlates with no other."""
    network = networks.build(recipes.SPEC, digits.image_shape, 10, seed=0)
    kernel, bias = network.get_layer(layer).get_weights()
    kernel[..., 5], bias[5] = 0, 0.1
    network.get_layer(layer).set_weights([kernel, bias])
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


def _described(network: Any, layer: str, digits: Dataset, chosen: Any) -> Rows:
    test = digits.splits["test"].take(np.asarray(chosen))
    dataset = replace(digits, splits={**digits.splits, "test": test})
    return filters.describe(network, layer, dataset).rows


@every_layer
def test_one_image_has_figures_and_no_comparison_of_images(
    trained: fit.Fitted, digits: Dataset, layer: str
) -> None:
    """Sparsity over images and selectivity among classes need a second one."""
    rows = _described(trained.model, layer, digits, [7])
    values = oracle.activations(trained.model, layer, digits.splits["test"].images[7:8])
    label = int(digits.splits["test"].labels[7])
    largest = values.max(axis=(0, 1, 2))
    np.testing.assert_allclose(_column(rows, "max_activation"), largest, rtol=1e-4, atol=1e-6)
    assert {row["sparsity"] for row in rows} == {row["selectivity"] for row in rows} == {None}
    assert {row["preferred_label"] for row in rows} <= {label, None}
    wanted = _sparseness(values.mean(axis=(0, 1, 2)))
    assert rows[0]["population_sparsity"] == pytest.approx(wanted, rel=1e-3)
    assert [mean is None for mean in rows[0]["class_means"]] == [i != label for i in range(10)]


@every_layer
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_filters_of_any_scale_have_the_same_figures(
    digits: Dataset, layer: str, scale: float
) -> None:
    """Activations whose squares are no float32; figures without a unit do not change."""
    network = _planted(digits, layer)
    rows = filters.describe(network, layer, digits).rows
    (kernel,) = network.get_layer(layer).get_weights()
    network.get_layer(layer).set_weights([kernel * np.float32(scale)])
    scaled = filters.describe(network, layer, digits).rows
    for name in ("fraction_active", "selectivity", "sparsity", "smoothness", "correlation"):
        np.testing.assert_allclose(
            _column(scaled, name), _column(rows, name), rtol=1e-4, atol=1e-6, err_msg=name
        )
    np.testing.assert_allclose(
        _column(scaled, "activation_p99"), _column(rows, "activation_p99") * scale, rtol=1e-2
    )


@every_layer
def test_the_size_of_the_batches_decides_nothing(
    trained: fit.Fitted,
    digits: Dataset,
    described: dict[str, filters.Filters],
    layer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """50 images at once, the last batch of 7: the same filters, figures to float32's rounding."""
    monkeypatch.setattr(activations, "_LARGEST_BATCH", 50)
    rows = filters.describe(trained.model, layer, digits).rows
    for name in set(rows[0]) - {"layer", "split", "histogram", "class_means"}:
        wanted = _column(described[layer].rows, name)
        tolerance = 0.01 if name.startswith("activation") else 1e-5
        np.testing.assert_allclose(_column(rows, name), wanted, rtol=tolerance, err_msg=name)
    found, wanted = (
        np.array([row["histogram"] for row in some]) for some in (rows, described[layer].rows)
    )
    assert np.abs(found - wanted).max() <= 5
    assert sum(row["preferred_label"] is not None for row in rows) > 20


def test_the_last_batch_counts_like_the_others(
    trained: fit.Fitted, digits: Dataset, described: dict[str, filters.Filters]
) -> None:
    """Test images five times over fill more than one batch and change no mean."""
    test = digits.splits["test"]
    many = test.take(np.tile(np.arange(len(test)), 5))
    dataset = replace(digits, splits={**digits.splits, "test": many})
    reports: list[Progress] = []
    rows = filters.describe(trained.model, "conv1", dataset, reports.append).rows
    for name in ("fraction_active", "max_activation", "mean_activation", "selectivity"):
        np.testing.assert_allclose(
            _column(rows, name), _column(described["conv1"].rows, name), rtol=1e-9, err_msg=name
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
    assert all(row["class_means"][2:] == [None] * 8 for row in rows)
    np.testing.assert_allclose([row["class_means"][1] for row in rows], ones, rtol=1e-3)


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_damaged_weights_are_refused(digits: Dataset, damage: float) -> None:
    """A kernel that is no number is not described as a filter that never fires."""
    network = _planted(digits)
    (kernel,) = network.get_layer("conv1").get_weights()
    kernel[0, 0, 0, 2] = damage
    network.get_layer("conv1").set_weights([kernel])
    with pytest.raises(ArtifactError, match="not finite"):
        filters.describe(network, "conv1", digits)
