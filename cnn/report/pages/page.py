"""The self-contained HTML page of one run: the cached body, and what differs between runs."""

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
    "model/model.keras": "the trained model; stock Keras opens it, pixels 0..255 go in",
    "model/model.json": "the model's input, classes and versions",
    "model/training.json": "all settings of the training",
    "tables/metrics.parquet": "accuracy with its interval, loss, calibration error, class counts "
    "of every split",
    "tables/predictions.parquet": "every validation and test image with its probabilities",
    "tables/per_class.parquet": "precision, recall and f1 of each class",
    "tables/confusion.parquet": "how often each label got each prediction",
    "tables/calibration.parquet": "accuracy by predicted probability",
    "tables/history.parquet": "loss, accuracy and learning rate while training",
    "tables/filters.parquet": "figures of each filter of each layer",
    "tables/patches.parquet": "where the most activating patches are",
    "tables/matches.parquet": "each filter, and its like in the promoted model",
    "tables/changed_predictions.parquet": "test images of which the promoted model says otherwise",
    "figures/samples.png": "16 training images with their labels",
    "figures/history.png": "accuracy, loss and learning rate over the steps",
    "figures/confusion.png": "which class was taken for which",
    "figures/calibration.png": "accuracy against predicted probability",
    "figures/mistakes.png": "the mistakes with the highest loss",
    "figures/changed.png": "test images whose prediction changed, those that became wrong first",
    "run.json": "what ran, why, with which settings, where",
}
# By the name's part before the layer's.
_WHAT_OF_LAYER = {
    "arrays/filters": "kernels of {layer}, (filters, height, width, channels)",
    "arrays/patches": "patches of {layer}, (filters, ranks, height, width, channels)",
    "figures/filters": "kernels of {layer}",
    "figures/health": "the dead, the duplicates and the specialists of {layer}",
    "figures/patches": "what most activates each filter of {layer}",
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

    artifacts: the folders whose files the run's folder has copies of. compared: what
    comparison_section says of the comparison with the promoted model.
    """
    environment = record.environment
    device = environment.get("device") or {}
    machine = (
        f"Python {environment['python']}, TensorFlow {environment['tensorflow']}, "
        f"Keras {environment['keras']}, NumPy {environment['numpy']}; model trained on "
        f"{device.get('name', 'an unknown device')} with {device.get('threads', '?')} threads, "
        f"{environment['precision']}"
    )
    # The body is our own template's output, in which all text from data was escaped.
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
    """Return what the page shows of a comparison that was written into a folder."""
    told = json.loads((folder / summary.SUMMARY_NAME).read_text(encoding="utf-8"))
    rows = parquet.read(folder / "changed_predictions.parquet").slice(0, N_LISTED).to_pylist()
    layers = [
        {
            "name": counts["layer"],
            "words": summary.filter_words(counts),
            "null_correlation": counts["null_correlation"],
            "picture": html.data_uri((folder / summary.picture_name(counts["layer"])).read_bytes()),
        }
        for counts in told["layers"]
    ]
    return {
        **told,
        "layers": layers,
        "rows": [row | {"outcome": summary.outcome(row)} for row in rows],
        "changed": html.data_uri((folder / summary.CHANGED_NAME).read_bytes()),
        "accuracy": summary.accuracy_words(told),
        "predictions": summary.prediction_words(told),
    }


def _files(artifacts: Mapping[Kind, Path]) -> list[tuple[str, str]]:
    """Return the files of the run's folder, each with what it is."""
    names = [
        path.name for kind, at in artifacts.items() if kind != "dataset" for path in at.iterdir()
    ]
    places = [(folders.place_of(name), name) for name in names]
    found = sorted((_ORDER.index(at), f"{at}/{name}") for at, name in places if at is not None)
    return [(path, _what(path)) for path in (*(path for _, path in found), records.RECORD_NAME)]


def _what(path: str) -> str:
    """Return in words what a file of a run's folder is; "" where it is of no known kind."""
    stem, _, layer = PurePosixPath(path).with_suffix("").as_posix().partition("-")
    return _WHAT.get(path) or _WHAT_OF_LAYER.get(stem, "").format(layer=layer)


def title(record: RunRecord) -> str:
    """Return the run's title: data, recipe, seed, and whether the data are a substitute."""
    name = "MNIST" if record.data == "mnist" else record.data
    is_substitute = record.data == "digits" and record.note.startswith(sources.OUT_OF_REACH)
    substitute = " in place of MNIST" if is_substitute else ""
    return f"{name}{substitute}, recipe {record.recipe}, seed {record.seed}"
