"""The evaluation: every image is counted once, and all figures follow from the counts."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.evaluate import evaluation, metrics
from cnn.evaluate import predictions as predicting
from cnn.progress import Progress
from cnn.train import fit, networks, recipes

pytestmark = pytest.mark.usefixtures("prepared")

BINS = 10


@pytest.fixture(scope="module")
def measured(trained: fit.Fitted, digits: Dataset) -> evaluation.Evaluation:
    """The evaluation of the trained model on `digits`."""
    return evaluation.evaluate(trained.model, digits, BINS)


@pytest.fixture(scope="module")
def predictions(measured: evaluation.Evaluation) -> pd.DataFrame:
    """Its table of predictions."""
    return pd.DataFrame(measured.tables["predictions"])


def _with_images(dataset: Dataset, split: str, images: NDArray[Any]) -> Dataset:
    """Return the data set with only these images, by index, in one split."""
    return replace(dataset, splits={**dataset.splits, split: dataset.splits[split].take(images)})


def _metric(measured: evaluation.Evaluation, split: str, name: str) -> dict[str, Any]:
    rows = measured.tables["metrics"]
    (row,) = (row for row in rows if (row["split"], row["metric"]) == (split, name))
    return row


def test_every_validation_and_test_image_has_one_prediction(
    predictions: pd.DataFrame, digits: Dataset
) -> None:
    """Ids and labels are those of the data set; no image is missing or repeated."""
    assert set(predictions["split"]) == {"validation", "test"}
    for name in ("validation", "test"):
        rows, split = predictions[predictions["split"] == name], digits.splits[name]
        assert rows["image_id"].tolist() == split.ids.tolist()
        assert rows["label"].tolist() == split.labels.tolist()


def test_predictions_are_those_of_the_model(
    predictions: pd.DataFrame, trained: fit.Fitted, digits: Dataset
) -> None:
    """Probabilities equal Keras's own; prediction, probability and loss follow from them."""
    images = np.concatenate([digits.splits[name].images for name in evaluation.SPLITS])
    expected = trained.model.predict(images.astype(np.float32), verbose=0)
    stored = np.stack(predictions["probabilities"].to_list())
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    np.testing.assert_allclose(stored.sum(axis=1), 1, rtol=1e-5)
    assert predictions["prediction"].tolist() == expected.argmax(axis=1).tolist()
    np.testing.assert_array_equal(predictions["probability"], stored.max(axis=1))
    of_label = stored[np.arange(len(stored)), predictions["label"]]
    np.testing.assert_allclose(predictions["loss"], -np.log(of_label), rtol=1e-4, atol=1e-6)
    assert predictions["label_name"].tolist() == [str(label) for label in predictions["label"]]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_metrics_follow_from_the_predictions(
    measured: evaluation.Evaluation, predictions: pd.DataFrame, split: str
) -> None:
    """Accuracy is correct / n with Wilson's interval, loss a mean, f1 and error as defined."""
    rows = predictions[predictions["split"] == split]
    right = rows["label"] == rows["prediction"]
    n_correct, n = int(right.sum()), len(rows)
    assert 0 < n_correct < n, "an accuracy of 0 or 1 would prove nothing"
    accuracy = _metric(measured, split, "accuracy")
    assert (accuracy["value"], accuracy["n"]) == (n_correct / n, n)
    assert (accuracy["ci_low"], accuracy["ci_high"]) == metrics.wilson(n_correct, n)
    assert _metric(measured, split, "loss")["value"] == pytest.approx(rows["loss"].mean())
    counts = metrics.confusion(rows["label"].to_numpy(), rows["prediction"].to_numpy(), 10)
    macro_f1 = _metric(measured, split, "macro_f1")["value"]
    assert macro_f1 == pytest.approx(np.nanmean(metrics.scores(counts).f1))
    calibration = metrics.calibration(rows["probability"].to_numpy(), right.to_numpy(), BINS)
    error = _metric(measured, split, "expected_calibration_error")["value"]
    assert error == pytest.approx(calibration.expected_error, abs=1e-6)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_tables_of_counts_add_up_to_the_split(
    measured: evaluation.Evaluation, predictions: pd.DataFrame, digits: Dataset, split: str
) -> None:
    """Confusion has a row per pair of classes; supports and bins include every image."""
    n = len(digits.splits[split])
    tables = {
        name: [row for row in rows if row["split"] == split]
        for name, rows in measured.tables.items()
    }
    assert len(tables["confusion"]) == 100
    rows = predictions[predictions["split"] == split]
    pairs = Counter(zip(rows["label"], rows["prediction"], strict=True))
    assert {
        (row["label"], row["prediction"]): row["count"]
        for row in tables["confusion"]
        if row["count"]
    } == pairs
    assert [row["support"] for row in tables["per_class"]] == digits.class_counts(split)
    assert len(tables["calibration"]) == BINS
    assert sum(row["n"] for row in tables["calibration"]) == n
    for row in tables["calibration"]:
        if row["n"]:
            assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]
            assert row["probability_low"] < row["mean_probability"] <= row["probability_high"]
        else:
            assert row["accuracy"] is row["mean_probability"] is row["ci_low"] is None


def test_the_headline_repeats_the_accuracies(
    measured: evaluation.Evaluation, digits: Dataset
) -> None:
    """Accuracy, interval and number of images of both splits, as in the metrics table."""
    expected: dict[str, Any] = {}
    for split in ("validation", "test"):
        row = _metric(measured, split, "accuracy")
        expected |= {
            f"{split}_accuracy": row["value"],
            f"{split}_accuracy_ci_low": row["ci_low"],
            f"{split}_accuracy_ci_high": row["ci_high"],
            f"n_{split}": len(digits.splits[split]),
        }
    assert measured.headline == expected


def test_a_last_batch_of_three_images_is_counted(trained: fit.Fitted, digits: Dataset) -> None:
    """1,003 images are one full batch and three more: each is measured as if alone."""
    n = len(digits.splits["test"])
    dataset = _with_images(digits, "test", np.arange(1003) % n)
    repeated = evaluation.evaluate(trained.model, dataset, BINS)
    rows = [row for row in repeated.tables["predictions"] if row["split"] == "test"]
    assert [row["image_id"] for row in rows] == dataset.splits["test"].ids.tolist()
    assert _metric(repeated, "test", "accuracy")["n"] == 1003
    probabilities = np.stack([row["probabilities"] for row in rows])
    np.testing.assert_array_equal(probabilities[n:], probabilities[:-n])


def test_logits_do_not_depend_on_the_rest_of_the_batch(
    trained: fit.Fitted, digits: Dataset
) -> None:
    """They are the same bytes whether an image comes alone or among others."""
    images = digits.splits["test"].images
    logits = predicting.logits_of(trained.model)
    together = logits(images)
    assert together.shape == (257, 10)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(logits(images[200:201]), together[200:201])
    np.testing.assert_array_equal(logits(images[:0]), together[:0])


@pytest.mark.parametrize("empty", ["validation", "test"])
def test_an_empty_split_has_no_rows(trained: fit.Fitted, digits: Dataset, empty: str) -> None:
    """No table and no headline has figures without images."""
    dataset = _with_images(digits, empty, np.arange(0))
    measured = evaluation.evaluate(trained.model, dataset, BINS)
    for name, rows in measured.tables.items():
        counted = {"train"} if name == "metrics" else set()
        assert {row["split"] for row in rows} == ({"validation", "test"} | counted) - {empty}
    assert not [name for name in measured.headline if empty in name]


def test_metrics_include_the_class_counts_of_every_split(
    measured: evaluation.Evaluation, digits: Dataset
) -> None:
    """The table that is read first shows how the images were split, training images too."""
    for split in ("train", "validation", "test"):
        labels = digits.splits[split].labels
        for label in range(10):
            row = _metric(measured, split, f"n_images_class_{label}")
            assert row["value"] == int((labels == label).sum())
            assert (row["n"], row["ci_low"], row["ci_high"]) == (len(labels), None, None)


def test_a_class_without_images_has_no_scores(trained: fit.Fitted, digits: Dataset) -> None:
    """Recall of a class without test images is null, not 0."""
    dataset = _with_images(digits, "test", np.flatnonzero(digits.splits["test"].labels != 7))
    rows = evaluation.evaluate(trained.model, dataset, BINS).tables["per_class"]
    (row,) = (row for row in rows if (row["split"], row["label"]) == ("test", 7))
    assert row["support"] == 0
    assert row["recall"] is None


def test_damaged_weights_are_refused(digits: Dataset) -> None:
    """One infinite weight in the last layer is enough."""
    network = networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0)
    kernel, bias = network.get_layer("logits").get_weights()
    kernel.flat[0] = np.inf
    network.get_layer("logits").set_weights([kernel, bias])
    with pytest.raises(ArtifactError, match="weights of logits are not finite"):
        evaluation.evaluate(network, digits, BINS)


def test_progress_counts_the_splits(trained: fit.Fitted, digits: Dataset) -> None:
    """One report per split; the last one says that all are done."""
    reports: list[Progress] = []
    evaluation.evaluate(trained.model, digits, BINS, reports.append)
    assert [(item.done, item.total) for item in reports] == [(1, 2), (2, 2)]


def test_probabilities_do_not_overflow() -> None:
    """Logits of a thousand give probabilities of 0 and 1 and finite losses."""
    found, logs = predicting.probabilities(np.array([[1000, 0], [0, -1000]], np.float32))
    np.testing.assert_array_equal(found, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(logs, [[0, -1000], [0, -1000]])
