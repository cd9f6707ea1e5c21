"""Comparison of two runs in a store: metrics, filters and predictions."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn import progress
from cnn.compare import comparison, summary
from cnn.compare.comparison import ModelOnData, Predictions
from cnn.config.run import RuntimeConfig
from cnn.data import dataset as datasets
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError, ConfigError
from cnn.io import atomic
from cnn.model_io import exports
from cnn.runs import records
from cnn.runs.records import RunRecord
from cnn.store import layout
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store
from cnn.tables import parquet
from cnn.train import device

N_NAMED = 10  # images with a changed prediction that the summary lists
METRICS = ("loss", "expected_calibration_error")


@dataclass(frozen=True)
class _RunFiles:
    """A run's record, its run folder, and access to its artifacts."""

    record: RunRecord
    folder: Path

    @property
    def refs(self) -> dict[Kind, Ref]:
        """Refs of the run's artifacts, by kind."""
        return {step.ref.kind: step.ref for step in self.record.steps if step.ref}

    def model(self, store: Store) -> Path:
        """Return the folder of the model: the artifact, or the run's copy if it is gone."""
        folder = self.folder / "model"
        with suppress(ArtifactError, KeyError):
            folder = store.open(self.refs["model"])
        if not (folder / exports.MODEL_NAME).is_file():
            why = "it failed" if self.record.status == "failed" else f"{folder} is empty"
            raise ArtifactError(
                f"{self.record.run} has no model: {why}; choose a run that completed"
            )
        return folder

    def dataset(self, store: Store) -> Dataset:
        """Return the data set that the run used; raises ArtifactError."""
        try:
            return datasets.read(store.open(self.refs["dataset"]))
        except (ArtifactError, KeyError) as error:
            raise ArtifactError(
                f"the images of {self.record.run} are no longer in the store ({error}); start the "
                "run again with its settings, or name it first: only the second run's images are "
                "needed"
            ) from None

    def metrics(self) -> dict[tuple[str, str], float]:
        """Return the run's metrics by split and name; an empty dict if the table is gone."""
        try:
            rows = parquet.read(self.folder / "tables" / "metrics.parquet").to_pylist()
            return {(row["split"], row["metric"]): row["value"] for row in rows}
        except (ArtifactError, KeyError):
            return {}


def compare(
    store: Store, names: tuple[str, str], report: progress.Report = progress.ignore
) -> tuple[Path, dict[str, Any]]:
    """Compare two runs on the second run's images; return the folder and the summary.

    names: as for records.find. Raises ConfigError or ArtifactError for runs that cannot be
    compared, StoreUnwritableError if the disk is full.
    """
    before, after = (_RunFiles(*records.find(store.runs, name)) for name in names)
    if before.record.run == after.record.run:
        raise ConfigError(f"{after.record.run} cannot be compared with itself; name another run")
    folders = before.model(store), after.model(store)
    dataset = after.dataset(store)
    device.prepare(RuntimeConfig())
    first, second = (
        ModelOnData(exports.load_model(item), exports.class_names(item)) for item in folders
    )
    result = comparison.compare(first, second, dataset, report)
    same_data = before.refs.get("dataset") == after.refs.get("dataset")
    summarised = {
        "before": before.record.run,
        "after": after.record.run,
        "note": "" if same_data else _other_data(before, after),
        "metrics": [
            _accuracy(comparison.SPLIT, result.predictions),
            *(_on_validation(first, second, dataset) if same_data else []),
            *(_figures(before, after) if same_data else []),
        ],
        **result.summary(),
        "first_changed": [row["image_id"] for row in result.changed[:N_NAMED]],
    }
    return _write(store, summarised, result, dataset), summarised


def _other_data(before: _RunFiles, after: _RunFiles) -> str:
    return (
        f"{before.record.run} was trained on other data ({before.record.data}), which may include "
        f"some of the test images of {after.record.run} that both models are compared on"
    )


def _accuracy(split: str, predicted: Predictions) -> dict[str, Any]:
    """Return both accuracies on the same images, and the paired interval of the difference."""
    accuracies = summary.accuracy(predicted.right_before, predicted.right_after)
    return {"split": split, "metric": "accuracy", **accuracies}


def _on_validation(
    before: ModelOnData, after: ModelOnData, dataset: Dataset
) -> list[dict[str, Any]]:
    """Return the accuracies on the validation images; an empty list if there are none."""
    if not len(dataset.splits["validation"]):
        return []
    return [_accuracy("validation", comparison.predictions(before, after, dataset, "validation"))]


def _figures(before: _RunFiles, after: _RunFiles) -> list[dict[str, Any]]:
    """Return loss and calibration error of both runs, from their tables of metrics."""
    values = before.metrics(), after.metrics()
    return [
        {
            "split": split,
            "metric": metric,
            "before": values[0][split, metric],
            "after": values[1][split, metric],
            "change": values[1][split, metric] - values[0][split, metric],
        }
        for split in (comparison.SPLIT, "validation")
        for metric in METRICS
        if all((split, metric) in metrics for metrics in values)
    ]


def _write(
    store: Store, summarised: dict[str, Any], result: comparison.Comparison, dataset: Dataset
) -> Path:
    """Publish tables, figures and comparison.json, replacing an earlier comparison."""
    from cnn.report import comparison as report_comparison  # matplotlib takes a second

    parent = store.root / layout.COMPARED
    folder = parent / layout.compared_name(summarised["before"], summarised["after"])
    with atomic.disk_faults("the comparison", parent), atomic.replacing_folder(folder) as temporary:
        report_comparison.write(temporary, result, dataset.splits[comparison.SPLIT])
        text = json.dumps(summarised, indent=2, allow_nan=False)
        (temporary / summary.SUMMARY_NAME).write_text(text, encoding="utf-8")
    return folder
