"""The self-contained HTML page of one run: the cached body, and what differs between runs."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from cnn.data import sources
from cnn.report import html
from cnn.store.runs import RunRecord

FILES = (
    ("model/model.keras", "the trained model; stock Keras opens it, pixels 0..255 go in"),
    ("model/model.json", "its input, classes and versions"),
    ("model/training.json", "all settings it was trained with"),
    (
        "tables/metrics.parquet",
        "accuracy with its interval, loss, calibration error, class counts of every split",
    ),
    ("tables/predictions.parquet", "every validation and test image with its probabilities"),
    ("tables/per_class.parquet", "precision, recall and f1 of each class"),
    ("tables/confusion.parquet", "how often each label got each prediction"),
    ("tables/calibration.parquet", "accuracy by predicted probability"),
    ("tables/history.parquet", "loss, accuracy and learning rate while training"),
    ("tables/filters.parquet", "figures of each filter"),
    ("tables/patches.parquet", "where the most activating patches are"),
    ("arrays/filters-conv1.npy", "kernels, (filters, height, width, channels)"),
    ("arrays/patches-conv1.npy", "patches, (filters, ranks, height, width, channels)"),
    ("run.json", "what ran, why, with which settings, where"),
)
COMPARED_FILES = (
    ("tables/matches.parquet", "each filter, and its like in the promoted model"),
    (
        "tables/changed_predictions.parquet",
        "test images of which the promoted model says otherwise",
    ),
)


def compose(record: RunRecord, body: str, compared: Mapping[str, Any] | None = None) -> str:
    """Return report.html: one file that needs no network and runs no script.

    compared: what compared.section says of the comparison with the promoted model.
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
        files=(*FILES, *(COMPARED_FILES if compared else ())),
    )


def title(record: RunRecord) -> str:
    """Return the run's title: data, recipe, seed, and whether the data are a substitute."""
    name = "MNIST" if record.data == "mnist" else record.data
    is_substitute = record.data == "digits" and record.note.startswith(sources.OUT_OF_REACH)
    substitute = " in place of MNIST" if is_substitute else ""
    return f"{name}{substitute}, recipe {record.recipe}, seed {record.seed}"
