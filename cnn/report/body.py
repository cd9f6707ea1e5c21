"""Figures and page body of a report: the work of the step write_report.

Nothing here differs between two runs with the same artifacts.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnn import progress
from cnn.data import dataset as datasets
from cnn.data.dataset import Dataset
from cnn.report import figures, html, pictures, theme
from cnn.store.refs import Kind

TITLES = {
    "mnist": "MNIST, handwritten digits",
    "fashion-mnist": "Fashion-MNIST, articles of clothing",
    "kmnist": "Kuzushiji-MNIST, cursive hiragana",
    "digits": "digits, 1,797 scans that ship with scikit-learn",
    "folder": "a folder of own images",
}


@dataclass(frozen=True)
class Material:
    """All that a report shows: the data set, the training's settings, tables, arrays."""

    dataset: Dataset
    training: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    kernels: Mapping[str, np.ndarray[Any, Any]]
    patches: Mapping[str, np.ndarray[Any, Any]]
    projections: Mapping[str, np.ndarray[Any, Any]]


def gather(folders: Mapping[Kind, Path]) -> Material:
    """Return the material that lies in the artifacts' folders, by kind."""
    others = [folder for kind, folder in folders.items() if kind != "dataset"]
    tables = {
        path.stem: pd.read_parquet(path) for folder in others for path in folder.glob("*.parquet")
    }
    return Material(
        datasets.read(folders["dataset"]),
        json.loads((folders["model"] / "training.json").read_text(encoding="utf-8")),
        tables,
        _arrays(folders["filters"], "filters"),
        _arrays(folders["patches"], "patches"),
        _arrays(folders["patches"], "projections"),
    )


def write(
    folder: Path, material: Material, n_mistakes: int, report: progress.Report = progress.ignore
) -> None:
    """Write every figure as PNG, body.html with the figures inside, and pictures.md.

    pictures.md has the figures at the width at which the Prefect UI shows them.
    """
    drawn = _figures(material, n_mistakes)
    uris = {}
    for done, (name, figure) in enumerate(drawn.items(), start=1):
        path = folder / f"{name}.png"
        theme.save(figure, path)
        uris[name] = html.data_uri(path.read_bytes())
        report(progress.Progress(done, len(drawn)))
    page = html.render("body.html", **_values(material), figures=uris)
    (folder / html.BODY_NAME).write_text(page, encoding="utf-8")
    (folder / html.PICTURES_NAME).write_text(_pictures(folder, drawn), encoding="utf-8")


def _figures(material: Material, n_mistakes: int) -> dict[str, Figure]:
    dataset, tables = material.dataset, material.tables
    test = dataset.splits["test"]
    drawn = {
        "samples": figures.samples(dataset.splits["train"], dataset.class_names),
        "history": figures.history(tables["history"], _batches(material.training)),
        "confusion": figures.confusion(tables["confusion"], "test"),
        "calibration": figures.calibration(tables["calibration"], "test"),
        "mistakes": figures.mistakes(tables["predictions"], test, n_mistakes),
    }
    for layer, kernels in material.kernels.items():
        rows = tables["filters"]
        drawn[f"filters-{layer}"] = figures.filters(kernels, rows[rows["layer"] == layer], layer)
    for layer, pixels in material.patches.items():
        rows = tables["patches"][tables["patches"]["layer"] == layer]
        drawn[f"patches-{layer}"] = figures.patches(pixels, rows, material.kernels[layer], layer)
        drawn[f"projections-{layer}"] = figures.projections(
            pixels, material.projections[layer], rows, layer
        )
    return drawn


def _pictures(folder: Path, names: Iterable[str]) -> str:
    """Return a markdown page of the figures as data URIs, no wider than they are shown."""
    return "\n\n".join(
        f"![{name}]({pictures.small((folder / f'{name}.png').read_bytes())})" for name in names
    )


def _values(material: Material) -> dict[str, Any]:
    """Return what the template shows, as plain values."""
    dataset = material.dataset
    per_class = material.tables["per_class"]
    return {
        "dataset": dataset,
        "title": TITLES.get(dataset.name, dataset.name),
        "metrics": _metrics(material.tables["metrics"]),
        "confusions": _records(_worst_confusions(material.tables["confusion"])),
        "per_class": _records(per_class[per_class["split"] == "test"]),
        "filters": _records(material.tables["filters"]),
        "training": material.training,
        "optimizer": _optimizer(material.training),
        "layers": list(material.kernels),
    }


def _optimizer(training: Mapping[str, Any]) -> str:
    """Return the optimizer's name; models from before there were several have Adam."""
    match training.get("optimizer", "adam"):
        case "sgd":
            return "SGD with Nesterov's momentum"
        case "rmsprop":
            return "RMSprop"
        case _:
            return "AdamW" if training.get("weight_decay") else "Adam"


def _batches(training: Mapping[str, Any]) -> str:
    """Return how a legend names the training batches: with what made them harder."""
    augmented = any(value for name, value in training.items() if name.startswith("augment_"))
    dropped = ", with dropout" if training["dropout"] else ""
    return "training batches" + dropped + (", augmented" if augmented else "")


def _worst_confusions(table: pd.DataFrame) -> pd.DataFrame:
    """Return the three most frequent confusions of test images."""
    wrong = table[(table["split"] == "test") & (table["label"] != table["prediction"])]
    return wrong[wrong["count"] > 0].nlargest(3, "count")


def _metrics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the metrics table as nested dicts: split, metric, columns."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _records(table):
        found.setdefault(row["split"], {})[row["metric"]] = row
    return found


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as dicts, null where a value is missing."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    """Return a cell's value, an array as a list, null where it is missing."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if pd.isna(value) else value


def _arrays(folder: Path, stem: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays `<stem>-<layer>.npy` of a folder, by layer."""
    paths = sorted(folder.glob(f"{stem}-*.npy"))
    return {path.stem.removeprefix(f"{stem}-"): np.load(path, allow_pickle=False) for path in paths}
