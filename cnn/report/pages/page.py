"""The self-contained HTML page of one run: the cached body, and all that belongs to this run."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from markupsafe import Markup

from cnn.compare import summary
from cnn.data import sources
from cnn.explain.views import VIEWS
from cnn.report.pages import html
from cnn.runs import folders, records
from cnn.runs.records import RunRecord
from cnn.store.refs import Kind
from cnn.tables import parquet

_WHAT = {
    "model/model.keras": "the trained model, for stock Keras; it takes pixels 0..255",
    "model/model.json": "the model's input, class names and library versions",
    "model/training.json": "all training settings",
    "tables/metrics.parquet": "accuracy with its interval, loss, calibration error and class "
    "counts of each split",
    "tables/predictions.parquet": "prediction and class probabilities of each validation and test "
    "image",
    "tables/per_class.parquet": "precision, recall and F1 of each class",
    "tables/confusion.parquet": "number of images for each label and prediction",
    "tables/calibration.parquet": "accuracy by predicted probability",
    "tables/history.parquet": "loss, accuracy and learning rate during training",
    "tables/filters.parquet": "statistics of each filter",
    "tables/patches.parquet": "image, position and activation of the most activating patches",
    "tables/matches.parquet": "each filter and its match in the promoted model",
    "tables/changed_predictions.parquet": "test images that the promoted model classifies "
    "differently",
    "figures/samples.png": "16 training images with their labels",
    "figures/history.png": "accuracy, loss and learning rate over the steps",
    "figures/confusion.png": "confusion matrix of the test images",
    "figures/calibration.png": "accuracy against predicted probability",
    "figures/mistakes.png": "the misclassified test images with the highest loss",
    "figures/changed.png": "test images whose prediction changed, newly wrong ones first",
    "run.json": "what ran, why, with which settings and on which machine",
}
# By the part of the name before the layer's name.
_WHAT_OF_LAYER = {
    "arrays/filters": "kernels of {layer}, (filters, height, width, channels)",
    "arrays/patches": "patches of {layer}, (filters, ranks, height, width, channels)",
    "figures/filters": "kernels of {layer}",
    "figures/health": "dead, duplicate and specialist filters of {layer}",
    "figures/patches": "the most activating patches of each filter of {layer}",
    "figures/matches": "filters of {layer} beside those of the promoted model",
}
for _view in VIEWS:
    _WHAT_OF_LAYER[f"arrays/{_view.name}"] = _view.array
    _WHAT_OF_LAYER[f"figures/{_view.name}"] = _view.figure
N_LISTED = 20  # changed predictions on the page
_ORDER = ("model", "tables", "arrays", "figures")


def compose(
    record: RunRecord,
    body: str,
    artifacts: Mapping[Kind, Path],
    compared: Mapping[str, Any] | None = None,
) -> str:
    """Return report.html: one file that needs no network and runs no script.

    artifacts: the folders whose files are copied into the run's folder. compared: what
    comparison_section returns for the comparison with the promoted model.
    """
    environment = record.environment
    device = environment.get("device") or {}
    machine = (
        f"Python {environment['python']}, TensorFlow {environment['tensorflow']}, "
        f"Keras {environment['keras']}, NumPy {environment['numpy']}; model trained on "
        f"{device.get('name', 'an unknown device')} with {device.get('threads', '?')} threads in "
        f"{environment['precision']}"
    )
    # The body comes from our own template, which escapes all text from data.
    return html.render(
        "page.html",
        run=record,
        title=title(record),
        body=Markup(body),
        machine=machine,
        compared=compared,
        files=_files(artifacts),
    )


def comparison_section(folder: Path) -> dict[str, Any]:
    """Return what the page shows of the comparison in a folder."""
    comparison = json.loads((folder / summary.SUMMARY_NAME).read_text(encoding="utf-8"))
    rows = parquet.read(folder / "changed_predictions.parquet").slice(0, N_LISTED).to_pylist()
    layers = [
        {
            "name": counts["layer"],
            "words": summary.filter_words(counts),
            "null_correlation": counts["null_correlation"],
            "figure": html.data_uri((folder / summary.picture_name(counts["layer"])).read_bytes()),
        }
        for counts in comparison["layers"]
    ]
    return {
        **comparison,
        "layers": layers,
        "rows": [row | {"outcome": summary.outcome(row)} for row in rows],
        "changed": html.data_uri((folder / summary.CHANGED_NAME).read_bytes()),
        "accuracy": summary.accuracy_words(comparison),
        "predictions": summary.prediction_words(comparison),
    }


def _files(artifacts: Mapping[Kind, Path]) -> list[tuple[str, str]]:
    """Return the files of the run's folder, each with a description."""
    names = [
        path.name for kind, at in artifacts.items() if kind != "dataset" for path in at.iterdir()
    ]
    places = [(folders.place_of(name), name) for name in names]
    ordered = sorted((_ORDER.index(at), f"{at}/{name}") for at, name in places if at is not None)
    return [(path, _what(path)) for path in (*(path for _, path in ordered), records.RECORD_NAME)]


def _what(path: str) -> str:
    """Return the description of a file in a run's folder; "" for a file of an unknown kind."""
    stem, _, layer = PurePosixPath(path).with_suffix("").as_posix().partition("-")
    return _WHAT.get(path) or _WHAT_OF_LAYER.get(stem, "").format(layer=layer)


def title(record: RunRecord) -> str:
    """Return the run's title: data, recipe and seed, and whether the data stand in for MNIST."""
    name = "MNIST" if record.data == "mnist" else record.data
    is_substitute = record.data == "digits" and record.note.startswith(sources.OUT_OF_REACH)
    substitute = " in place of MNIST" if is_substitute else ""
    return f"{name}{substitute}, recipe {record.recipe}, seed {record.seed}"
