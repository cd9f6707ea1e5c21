"""Compares two runs of a store: their metrics, their filters, and what their models predict."""

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

N_NAMED = 10  # images whose prediction changed
METRICS = ("loss", "expected_calibration_error")


@dataclass(frozen=True)
class _RunFiles:
    """A run with the folders of its model and its copies."""

    record: RunRecord
    folder: Path

    @property
    def refs(self) -> dict[Kind, Ref]:
        """What it made, by kind."""
        return {step.ref.kind: step.ref for step in self.record.steps if step.ref}

    def model(self, store: Store) -> Path:
        """Return the folder of its model: in the store, or else its own copy."""
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
        """Return the images it was made from."""
        try:
            return datasets.read(store.open(self.refs["dataset"]))
        except (ArtifactError, KeyError) as error:
            raise ArtifactError(
                f"the images of {self.record.run} are not in the store any more ({error}); run it "
                "again with its settings, or name it first: the second run's images are compared on"
            ) from None

    def metrics(self) -> dict[tuple[str, str], float]:
        """Return what its evaluation found, by split and metric; nothing where it is gone."""
        try:
            rows = parquet.read(self.folder / "tables" / "metrics.parquet").to_pylist()
            return {(row["split"], row["metric"]): row["value"] for row in rows}
        except (ArtifactError, KeyError):
            return {}


def compare(
    store: Store, names: tuple[str, str], report: progress.Report = progress.ignore
) -> tuple[Path, dict[str, Any]]:
    """Compare two runs on the second one's images; return where it was written, and what is told.

    names: as for runs.find. Raises ConfigError and ArtifactError for runs that cannot be
    compared, StoreUnwritableError where there is no room for the tables and figures.
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
    found = comparison.compare(first, second, dataset, report)
    are_alike = before.refs.get("dataset") == after.refs.get("dataset")
    told = {
        "before": before.record.run,
        "after": after.record.run,
        "note": "" if are_alike else _other_data(before, after),
        "metrics": [
            _accuracy(comparison.SPLIT, found.predictions),
            *(_on_validation(first, second, dataset) if are_alike else []),
            *(_figures(before, after) if are_alike else []),
        ],
        **found.summary(),
        "first_changed": [row["image_id"] for row in found.changed[:N_NAMED]],
    }
    return _write(store, told, found, dataset), told


def _other_data(before: _RunFiles, after: _RunFiles) -> str:
    return (
        f"{before.record.run} was trained on other data ({before.record.data}): both are asked "
        f"about the test images of {after.record.run}, some of which it may have been trained on"
    )


def _accuracy(split: str, said: Predictions) -> dict[str, Any]:
    """Return both accuracies on the same images, and the paired interval of the difference."""
    found = summary.accuracy(said.right_before, said.right_after)
    return {"split": split, "metric": "accuracy", **found}


def _on_validation(
    before: ModelOnData, after: ModelOnData, dataset: Dataset
) -> list[dict[str, Any]]:
    """Return the accuracies on the validation images, if there are any."""
    if not len(dataset.splits["validation"]):
        return []
    return [_accuracy("validation", comparison.predictions(before, after, dataset, "validation"))]


def _figures(before: _RunFiles, after: _RunFiles) -> list[dict[str, Any]]:
    """Return loss and calibration error of both, as their evaluations found them."""
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
        if all((split, metric) in found for found in values)
    ]


def _write(
    store: Store, told: dict[str, Any], found: comparison.Comparison, dataset: Dataset
) -> Path:
    """Put tables, figures and comparison.json in place, of an earlier comparison in its stead."""
    from cnn.report import comparison as report_comparison  # matplotlib takes a second

    parent = store.root / layout.COMPARED
    folder = parent / layout.compared_name(told["before"], told["after"])
    with atomic.disk_faults("the comparison", parent), atomic.replacing_folder(folder) as made:
        report_comparison.write(made, found, dataset.splits[comparison.SPLIT])
        text = json.dumps(told, indent=2, allow_nan=False)
        (made / summary.SUMMARY_NAME).write_text(text, encoding="utf-8")
    return folder
