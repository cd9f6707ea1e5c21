"""The report's body: every figure inside, and the numbers of the tables."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn.report import filter_status
from cnn.report.figures import overview
from cnn.report.pages import html
from cnn.report.pages.body import Material
from tests.cnn.report.helpers import ParsedPage, decoded, pixels_of, written

OVERVIEW = ["samples", "history", "confusion", "calibration", "mistakes"]
LAYERS = ("conv1", "conv2")
DRAWN = ("filters", "health", "patches", "projections")  # in the order of drawing
SHOWN = ("health", "filters", "patches", "projections")  # in the order of reading
FIGURES = OVERVIEW + [f"{name}-{layer}" for layer in LAYERS for name in DRAWN]
OLD_MODELS_LACK = ("optimizer", "weight_decay", "label_smoothing", "augment_shear")
IN_READING_ORDER = OVERVIEW + [f"{name}-{layer}" for layer in LAYERS for name in SHOWN]


def test_every_figure_is_written_and_is_in_the_body(report: Path, page: ParsedPage) -> None:
    """The body has the bytes of the files, each once, in reading order."""
    assert sorted(path.name for path in report.iterdir()) == sorted(
        [f"{name}.png" for name in FIGURES] + [html.BODY_NAME, html.PICTURES_NAME]
    )
    assert page.figures == [(report / f"{name}.png").read_bytes() for name in IN_READING_ORDER]


def test_headline_numbers_are_those_of_the_tables(page: ParsedPage, material: Material) -> None:
    """Accuracy with its interval, mistakes and images; the data set and the training."""
    table = material.tables["predictions"]
    test = table[table["split"] == "test"]
    n_wrong = int((test["label"] != test["prediction"]).sum())
    metrics = material.tables["metrics"]
    row = metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy")].iloc[0]
    assert row["value"] == 1 - n_wrong / 257
    for words in (
        f"test accuracy {100 * row['value']:.2f} % "
        f"95 % interval {100 * row['ci_low']:.2f} % to {100 * row['ci_high']:.2f} %",
        f"test mistakes {n_wrong} of 257 images",
        "128 images held out from training",
        "28 x 28 x 1 pixels, 10 classes; 1,412 train, 128 validation, 257 test",
        "160 steps of 64 images, Adam, peak learning rate 0.008 ",
        "(linear schedule), seed 0.",
    ):
        assert words in page.text()


@pytest.mark.parametrize(
    ("changes", "optimizer", "batches"),
    [
        ({"optimizer": "sgd", "dropout": 0.0}, "SGD with Nesterov's momentum", ""),
        (
            {"optimizer": "rmsprop", "weight_decay": 0.1, "dropout": 0.5},
            "RMSprop",
            ", with dropout",
        ),
        ({"weight_decay": 0.1, "dropout": 0.0, "augment_shear": 5.0}, "AdamW", ", augmented"),
        ({"dropout": 0.5, "augment_shift": 1.0}, "Adam", ", with dropout, augmented"),
        (dict.fromkeys(OLD_MODELS_LACK), "Adam", ""),
    ],
)
def test_the_optimizer_and_the_training_batches_are_named(
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    optimizer: str,
    batches: str,
) -> None:
    """The legend mentions dropout and augmentation, which make the batches harder.

    changes: None removes a setting. Older models lack some, and were trained with Adam.
    """
    named: list[str] = []
    draw = overview.history
    monkeypatch.setattr(overview, "history", lambda t, name: named.append(name) or draw(t, name))
    training = {**material.training, **changes}
    training = {name: value for name, value in training.items() if value is not None}
    _, page = written(replace(material, training=training), tmp_path)
    assert f"images, {optimizer}, peak learning rate" in page.text()
    assert named == [f"training batches{batches}"]


def test_the_most_frequent_confusion_is_named(page: ParsedPage, material: Material) -> None:
    """First, with its count."""
    table = material.tables["confusion"]
    wrong = table[(table["split"] == "test") & (table["label"] != table["prediction"])]
    row = wrong.loc[wrong["count"].idxmax()]
    times = "times" if row["count"] > 1 else "time"
    words = f"{row['label']} predicted as {row['prediction']} ({row['count']} {times})"
    assert f"Most frequent confusions: {words}" in page.text()


def test_each_class_and_each_filter_has_its_row(page: ParsedPage, material: Material) -> None:
    """Precision, recall and F1 of a class; the statistics of a filter."""
    per_class = material.tables["per_class"]
    for row in per_class[per_class["split"] == "test"].itertuples():
        shares = " ".join(f"{100 * v:.2f} %" for v in (row.precision, row.recall, row.f1))
        assert f"{row.label_name} {row.support} {shares}" in page.text()
    rows = material.tables["filters"]
    row = rows[~rows["dead"]].iloc[-1]
    status = filter_status.of(row).words(material.dataset.class_names)
    expected = (
        f"{row['filter']} {status} {100 * row['fraction_active']:.1f} % "
        f"{row['max_activation']:.3f} {row['selectivity']:.3f} {row['preferred_label']:.0f} "
        f"{row['sparsity']:.3f} {row['smoothness']:.3f} {row['l2_norm']:.3f} "
        f"{row['nearest_filter']:.0f} {row['nearest_cosine']:.3f} "
        f"{row['correlated_filter']:.0f} {row['correlation']:.3f}"
    )
    assert " ".join(expected.split()) in page.text()


def test_figures_for_the_ui_are_600_pixels_wide(report: Path) -> None:
    """Each figure once, no text beside them, every colour within 25 of 255 levels."""
    text = (report / html.PICTURES_NAME).read_text(encoding="utf-8")
    found = re.findall(r"!\[(\S+)\]\((\S+)\)", text)
    assert [name.replace("\\", "") for name, _ in found] == FIGURES
    assert re.sub(r"!\[\S+\]\(\S+\)", "", text).strip() == ""
    for name, (_, uri) in zip(FIGURES, found, strict=True):
        original = Image.fromarray(pixels_of((report / f"{name}.png").read_bytes()))
        small = Image.open(BytesIO(decoded(uri)))
        assert (small.format, small.width) == ("PNG", 600)
        assert small.height == pytest.approx(original.height * 600 / 1040, abs=1)
        resized = original.resize(small.size, Image.Resampling.LANCZOS)
        levels = pixels_of(decoded(uri)).astype(int) - np.asarray(resized, int)
        assert np.abs(levels).max() < 25, name


def _with_tables(material: Material, **changes: Any) -> Material:
    return replace(material, tables={**material.tables, **changes})


def test_without_validation_images_the_body_leaves_them_out(
    material: Material, tmp_path: Path
) -> None:
    """No table has rows of that split; the history lacks its curve."""
    tables = {
        name: table[table["split"] != "validation"] if "split" in table else table
        for name, table in material.tables.items()
    }
    _, page = written(_with_tables(material, **tables), tmp_path)
    assert "validation accuracy" not in page.text()
    assert "test accuracy" in page.text()
    assert len(page.figures) == len(FIGURES)


def test_a_model_without_mistakes_has_a_report(material: Material, tmp_path: Path) -> None:
    """100 %, no confusions, and still the sheet of mistakes."""
    predictions, confusion, metrics = (
        material.tables[name] for name in ("predictions", "confusion", "metrics")
    )
    diagonal = np.where(confusion["label"] == confusion["prediction"], 1, 0)
    right = _with_tables(
        material,
        predictions=predictions.assign(prediction=predictions["label"]),
        confusion=confusion.assign(count=diagonal),
        metrics=metrics.assign(value=1.0, ci_low=0.985, ci_high=1.0),
    )
    _, page = written(right, tmp_path)
    assert "test accuracy 100.00 %" in page.text()
    assert "test mistakes 0 of 257 images" in page.text()
    assert "confusions" not in page.text()
    assert len(page.figures) == len(FIGURES)


def test_unknown_values_read_na(material: Material, tmp_path: Path) -> None:
    """A dead filter has no preferred class and no patches; an unpredicted class no precision."""
    filters, per_class, patches = (
        material.tables[name].copy() for name in ("filters", "per_class", "patches")
    )
    dead = filters["filter"] == 2
    unknown = ["selectivity", "preferred_label", "sparsity", "smoothness", "nearest_filter"]
    filters.loc[dead, [*unknown, "nearest_cosine", "correlated_filter", "correlation"]] = None
    filters.loc[dead, ["dead", "fraction_active", "max_activation"]] = True, 0, 0
    filters["class_means"] = [
        np.full(10, np.nan) if is_dead else means
        for is_dead, means in zip(dead, filters["class_means"], strict=True)
    ]
    per_class.loc[per_class["label"] == 7, ["precision", "f1"]] = None
    patches = patches[patches["filter"] != 2]
    tables = {"filters": filters, "per_class": per_class, "patches": patches}
    _, page = written(_with_tables(material, **tables), tmp_path)
    row = filters[dead].iloc[0]
    expected = f"2 dead 0.0 % 0.000 n/a n/a n/a n/a {row['l2_norm']:.3f} n/a n/a n/a n/a"
    assert expected in page.text()
    seven = per_class[(per_class["split"] == "test") & (per_class["label"] == 7)].iloc[0]
    assert f"7 {seven['support']} n/a {100 * seven['recall']:.2f} % n/a" in page.text()
    alone = page.text("filter-conv1-2")
    assert alone.startswith("previous all filters of conv1 next Filter 2 of conv1 dead")
    assert "No patches: it never fires" in alone
    assert list(page.images["filter-conv1-2"]) == ["kernel of filter 2"]
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text())
