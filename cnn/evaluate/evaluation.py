"""Evaluate a model on validation and test images: the work of the step evaluate_model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.data.dataset import Dataset, Split
from cnn.evaluate import metrics, predictions
from cnn.model_io.keras_types import Model
from cnn.tables import parquet

SPLITS = ("validation", "test")
Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """The rows of every table, by table name, and the headline figures."""

    tables: Mapping[str, list[Row]]
    headline: dict[str, float | int | str | None]


def evaluate(
    model: Model,
    dataset: Dataset,
    calibration_bins: int,
    report: progress.Report = progress.ignore,
) -> Evaluation:
    """Return predictions for every validation and test image, and the metrics from them.

    The table of metrics begins with the class counts of every split, including training. An
    empty split has no rows.
    """
    tables: dict[str, list[Row]] = {
        name: [] for name in ("predictions", "metrics", "per_class", "confusion", "calibration")
    }
    for name, split in dataset.splits.items():
        if len(split):
            tables["metrics"] += _count_rows(name, dataset.class_counts(name))
    headline: dict[str, float | int | str | None] = {}
    logits = predictions.logits_of(model)
    for done, name in enumerate(SPLITS):
        split = dataset.splits[name]
        if len(split):
            measured = _measure(
                logits(split.images), name, split, dataset.class_names, calibration_bins
            )
            for table, rows in measured.tables.items():
                tables[table] += rows
            headline |= measured.headline
        report(progress.Progress(done + 1, len(SPLITS)))
    return Evaluation(tables, headline)


def write(folder: Path, measured: Evaluation) -> None:
    """Write every table as parquet."""
    for name, rows in measured.tables.items():
        parquet.write_rows(folder / f"{name}.parquet", name, rows)


def _measure(
    logits: NDArray[np.float32],
    name: str,
    split: Split,
    class_names: tuple[str, ...],
    calibration_bins: int,
) -> Evaluation:
    labels = np.asarray(split.labels)
    probabilities, logs = predictions.probabilities(logits)
    predicted = probabilities.argmax(axis=1)
    losses = -logs[np.arange(len(labels)), labels]
    counts = metrics.confusion(labels, predicted, len(class_names))
    if counts.sum() != len(labels):
        raise AssertionError(f"counted {counts.sum()} of {len(labels)} {name} images")
    calibration = metrics.calibration(
        probabilities.max(axis=1), predicted == labels, calibration_bins
    )
    scores = metrics.scores(counts)
    summary = _metric_rows(name, counts, losses, scores, calibration)
    accuracy = summary[0]
    return Evaluation(
        {
            "predictions": _prediction_rows(
                name, split, class_names, probabilities, predicted, losses
            ),
            "metrics": summary,
            "per_class": _class_rows(name, class_names, scores),
            "confusion": _confusion_rows(name, class_names, counts),
            "calibration": _calibration_rows(name, calibration),
        },
        {
            f"{name}_accuracy": accuracy["value"],
            f"{name}_accuracy_ci_low": accuracy["ci_low"],
            f"{name}_accuracy_ci_high": accuracy["ci_high"],
            f"n_{name}": len(labels),
        },
    )


def _metric_rows(
    split: str,
    counts: NDArray[np.int64],
    losses: NDArray[np.float64],
    scores: metrics.Scores,
    calibration: metrics.Calibration,
) -> list[Row]:
    n, n_correct = int(counts.sum()), int(np.trace(counts))
    low, high = metrics.wilson(n_correct, n)
    values = [
        ("accuracy", n_correct / n, low, high),
        ("loss", float(losses.sum() / n), None, None),
        ("macro_f1", float(np.nanmean(scores.f1)), None, None),
        ("expected_calibration_error", calibration.expected_error, None, None),
    ]
    return [
        {"split": split, "metric": name, "value": value, "ci_low": low, "ci_high": high, "n": n}
        for name, value, low, high in values
    ]


def _count_rows(split: str, counts: list[int]) -> list[Row]:
    """Return a row per class with its number of images; the metric's name ends in the label."""
    empty = {"ci_low": None, "ci_high": None, "n": sum(counts)}
    return [
        {"split": split, "metric": f"n_images_class_{label}", "value": float(n), **empty}
        for label, n in enumerate(counts)
    ]


def _prediction_rows(
    split: str,
    images: Split,
    class_names: tuple[str, ...],
    probabilities: NDArray[np.float64],
    predicted: NDArray[np.int64],
    losses: NDArray[np.float64],
) -> list[Row]:
    return [
        {
            "image_id": int(image_id),
            "split": split,
            "label": int(label),
            "prediction": int(prediction),
            "label_name": class_names[label],
            "prediction_name": class_names[prediction],
            "probability": row[prediction],
            "probabilities": row,
            "loss": loss,
        }
        for image_id, label, prediction, row, loss in zip(
            images.ids,
            images.labels,
            predicted,
            probabilities.astype(np.float32),
            losses,
            strict=True,
        )
    ]


def _class_rows(split: str, class_names: tuple[str, ...], scores: metrics.Scores) -> list[Row]:
    return [
        {
            "split": split,
            "label": label,
            "label_name": name,
            "support": int(scores.support[label]),
            "precision": _or_none(scores.precision[label]),
            "recall": _or_none(scores.recall[label]),
            "f1": _or_none(scores.f1[label]),
        }
        for label, name in enumerate(class_names)
    ]


def _confusion_rows(
    split: str, class_names: tuple[str, ...], counts: NDArray[np.int64]
) -> list[Row]:
    return [
        {
            "split": split,
            "label": label,
            "prediction": prediction,
            "label_name": class_names[label],
            "prediction_name": class_names[prediction],
            "count": int(count),
        }
        for (label, prediction), count in np.ndenumerate(counts)
    ]


def _calibration_rows(split: str, calibration: metrics.Calibration) -> list[Row]:
    return [
        {
            "split": split,
            "bin": i,
            "probability_low": float(calibration.edges[i]),
            "probability_high": float(calibration.edges[i + 1]),
            "n": int(n),
            "mean_probability": _or_none(calibration.mean_probability[i]),
            "accuracy": _or_none(calibration.accuracy[i]),
            **_interval(calibration.n_correct[i], n),
        }
        for i, n in enumerate(calibration.n)
    ]


def _interval(n_correct: int, n: int) -> Row:
    low, high = metrics.wilson(int(n_correct), int(n)) if n else (None, None)
    return {"ci_low": low, "ci_high": high}


def _or_none(value: Any) -> float | None:
    """Return a fraction, or None if it is undefined."""
    return None if np.isnan(value) else float(value)
