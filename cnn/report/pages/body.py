"""Figures and page body of a report: the work of the step write_report.

Two runs with the same artifacts get the same figures and the same body.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnn import progress
from cnn.data import dataset as datasets
from cnn.data import titles
from cnn.data.dataset import Dataset
from cnn.explain.views import VIEWS
from cnn.report import filter_status
from cnn.report.figures import health, layers, overview, theme
from cnn.report.figures.layers import ExplainedLayer
from cnn.report.pages import filter_pages, html, thumbnails
from cnn.store.refs import Kind

_MOST_IN_UI = 25  # filters with a row each; the UI cannot fold a tall figure


@dataclass(frozen=True)
class Material:
    """Everything a report shows: data set, training settings, tables, and arrays by layer."""

    dataset: Dataset
    training: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    kernels: Mapping[str, np.ndarray[Any, Any]]
    patches: Mapping[str, np.ndarray[Any, Any]]
    views: Mapping[str, Mapping[str, np.ndarray[Any, Any]]]


def gather(folders: Mapping[Kind, Path]) -> Material:
    """Return the material read from the folders of the artifacts, by kind."""
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
        {view.name: _arrays(folders["patches"], view.name) for view in VIEWS},
    )


def write(
    folder: Path, material: Material, n_mistakes: int, report: progress.Report = progress.ignore
) -> None:
    """Write every figure as PNG, body.html with the figures inside, and pictures.md.

    pictures.md has the figures at the width at which the Prefect UI shows them, and only the
    first rows of tall ones.
    """
    shown = layers_of(material)
    drawn = _figures(material, n_mistakes) | _figures_of_layers(shown)
    short = _short_figures(shown)
    uris, in_ui = {}, {}
    for done, (name, figure) in enumerate(drawn.items(), start=1):
        path = folder / f"{name}.png"
        theme.save(figure, path)
        png = path.read_bytes()
        uris[name] = html.data_uri(png)
        in_ui[name] = theme.png(short[name]) if name in short else png
        report(progress.Progress(done, len(drawn)))
    page = html.render("body.html", **_values(material, shown), figures=uris)
    (folder / html.BODY_NAME).write_text(page, encoding="utf-8")
    small = "\n\n".join(thumbnails.fitting(in_ui, "the report"))
    (folder / html.PICTURES_NAME).write_text(small, encoding="utf-8")


def layers_of(material: Material) -> list[ExplainedLayer]:
    """Return the layers with everything the report shows of each."""
    filters, patches = (material.tables[name] for name in ("filters", "patches"))
    return [
        ExplainedLayer(
            name,
            _records(filters[filters["layer"] == name].sort_values("filter")),
            kernels,
            material.patches[name],
            {view: arrays[name] for view, arrays in material.views.items()},
            _records(patches[patches["layer"] == name].sort_values(["filter", "rank"])),
            material.dataset.class_names,
        )
        for name, kernels in ((name, material.kernels[name]) for name in filters["layer"].unique())
    ]


def _figures(material: Material, n_mistakes: int) -> dict[str, Figure]:
    dataset, tables = material.dataset, material.tables
    test = dataset.splits["test"]
    return {
        "samples": overview.samples(dataset.splits["train"], dataset.class_names),
        "history": overview.history(tables["history"], _batches(material.training)),
        "confusion": overview.confusion(tables["confusion"], "test"),
        "calibration": overview.calibration(tables["calibration"], "test"),
        "mistakes": overview.mistakes(tables["predictions"], test, n_mistakes),
    }


def _figures_of_layers(shown: Iterable[ExplainedLayer]) -> dict[str, Figure]:
    drawn = {}
    for one in shown:
        drawn[f"filters-{one.name}"] = layers.filters(one)
        drawn[f"health-{one.name}"] = health.draw(one.rows, one.name, one.class_names)
        drawn[f"patches-{one.name}"] = layers.patches(one)
        drawn |= {f"{view.name}-{one.name}": layers.view(one, view) for view in VIEWS}
    return drawn


def _short_figures(shown: Iterable[ExplainedLayer]) -> dict[str, Figure]:
    """Return the first rows of the figures that are too tall for the UI."""
    drawn = {}
    for one in shown:
        if len(one.kernels) > _MOST_IN_UI:
            drawn[f"patches-{one.name}"] = layers.patches(one, _MOST_IN_UI)
            for view in VIEWS:
                drawn[f"{view.name}-{one.name}"] = layers.view(one, view, _MOST_IN_UI)
    return drawn


def _values(material: Material, shown: Sequence[ExplainedLayer]) -> dict[str, Any]:
    """Return the values that the template shows."""
    dataset = material.dataset
    per_class = material.tables["per_class"]
    return {
        "dataset": dataset,
        "title": titles.of(dataset.name),
        "metrics": _metrics(material.tables["metrics"]),
        "confusions": _records(_worst_confusions(material.tables["confusion"])),
        "per_class": _records(per_class[per_class["split"] == "test"]),
        "training": material.training,
        "optimizer": _optimizer(material.training),
        "layers": shown,
        "views": VIEWS,
        "pages": {one.name: filter_pages.of(one) for one in shown},
        "anchor": filter_pages.anchor,
        "filter_status": filter_status,
    }


def _optimizer(training: Mapping[str, Any]) -> str:
    """Return the optimizer's name; older models, whose settings do not name it, have Adam."""
    match training.get("optimizer", "adam"):
        case "sgd":
            return "SGD with Nesterov's momentum"
        case "rmsprop":
            return "RMSprop"
        case _:
            return "AdamW" if training.get("weight_decay") else "Adam"


def _batches(training: Mapping[str, Any]) -> str:
    """Return the legend's name of the training batches, with dropout and augmentation if used."""
    augmented = any(value for name, value in training.items() if name.startswith("augment_"))
    dropped = ", with dropout" if training["dropout"] else ""
    return "training batches" + dropped + (", augmented" if augmented else "")


def _worst_confusions(table: pd.DataFrame) -> pd.DataFrame:
    """Return the three most frequent confusions of test images."""
    wrong = table[(table["split"] == "test") & (table["label"] != table["prediction"])]
    return wrong[wrong["count"] > 0].nlargest(3, "count")


def _metrics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the metrics table as nested dicts: split, metric, columns."""
    nested: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _records(table):
        nested.setdefault(row["split"], {})[row["metric"]] = row
    return nested


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as dicts, None where a value is missing."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    """Return a cell's value, an array as a list, a missing value as None."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if pd.isna(value) else value


def _arrays(folder: Path, stem: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays `<stem>-<layer>.npy` of a folder, by layer."""
    paths = sorted(folder.glob(f"{stem}-*.npy"))
    return {path.stem.removeprefix(f"{stem}-"): np.load(path, allow_pickle=False) for path in paths}
