"""Figures of data, training and evaluation show what the tables hold."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnn.data.dataset import Dataset
from cnn.report.figures import overview, theme
from cnn.report.pages.body import Material
from tests.cnn.report.helpers import draw_all, drawn, lines, relabelled, texts, tinted


def _confusion(material: Material, **changes: Any) -> Any:
    return overview.confusion(material.tables["confusion"].assign(**changes), "test")


def test_every_figure_is_complete_and_1040_pixels_wide(material: Material) -> None:
    """White at the upper and lower edge, every text inside, something drawn."""
    for name, figure in draw_all(material).items():
        pixels = drawn(figure)
        assert (pixels[[0, -1]] == 255).all(), f"{name} is cut off"
        assert Image.fromarray(pixels).getcolors(20) is None, f"{name} has 20 colours or fewer"


def test_samples_are_16_training_images_with_label_and_id(material: Material) -> None:
    """Spread over the whole split, in its order."""
    train = material.dataset.splits["train"]
    shown = lines(overview.samples(train, material.dataset.class_names))
    ids = [int(line[1:]) for line in shown if re.fullmatch(r"#\d+", line)]
    assert len(ids) == 16
    positions = [train.ids.tolist().index(image_id) for image_id in ids]
    assert positions == sorted(positions)
    assert positions[-1] - positions[0] > 0.9 * len(train)
    labels = [line for line in shown if re.fullmatch(r"\d", line)]
    assert labels == [str(train.labels[position]) for position in positions]


def test_history_draws_the_table(material: Material) -> None:
    """Accuracy and loss of both splits, and the learning rate, against the steps."""
    table = material.tables["history"]
    top, middle, bottom = overview.history(table).axes
    for axes, column in ((top, "accuracy"), (middle, "loss")):
        curves = {str(line.get_label()): line for line in axes.get_lines()}
        for split, label in (("train", "training batches"), ("validation", "validation images")):
            rows = table[table["split"] == split]
            np.testing.assert_array_equal(curves[label].get_xdata(), rows["step"])
            np.testing.assert_array_equal(curves[label].get_ydata(), rows[column])
    (rate,) = bottom.get_lines()
    rows = table[table["split"] == "train"]
    np.testing.assert_array_equal(rate.get_ydata(), rows["learning_rate"])


def test_a_short_history_and_a_loss_of_0_are_drawn(material: Material) -> None:
    """One log point is drawn as points without lines; a loss of 0 has no logarithm."""
    table = material.tables["history"]
    for rows in (table[table["step"] == 20], table[table["step"] == 20].iloc[:1]):
        figure = overview.history(rows)
        drawn(figure)
        assert [len(axes.get_lines()) for axes in figure.axes] == [len(rows), len(rows), 1]
    drawn(overview.history(table.assign(loss=0.0)))


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ([0.8, 0.995, 0.999], [0.97, 0.976, 0.9766]),
        ([0.5, 0.9, 0.95], [0.9, 0.99, 0.999]),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        ([0.9, 0.5, 0.1], [0.2, 0.1, 0.0]),
    ],
)
def test_the_accuracy_axis_shows_the_last_value_of_every_split(
    train: list[float], validation: list[float]
) -> None:
    """A good split does not push a weaker one off the axis."""
    columns = {"loss": 1.0, "learning_rate": 1e-3, "status": "ok"}
    rows = [
        {"step": 100 * i, "split": split, "accuracy": accuracy, **columns}
        for split, values in (("train", train), ("validation", validation))
        for i, accuracy in enumerate(values, start=1)
    ]
    axes = overview.history(pd.DataFrame(rows)).axes[0]
    low, high = axes.get_ylim()
    assert all(low < line.get_ydata()[-1] < high for line in axes.get_lines())


def test_confusion_shows_the_counts_of_the_split_and_colours_mistakes_only(
    material: Material,
) -> None:
    """Each count is in its cell, rows are labels; the diagonal has no colour."""
    table = material.tables["confusion"]
    rows = table[table["split"] == "test"]
    counts = np.zeros((10, 10), int)
    counts[rows["label"], rows["prediction"]] = rows["count"]
    axes = _confusion(material).axes[0]
    cells = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert cells == {(x, y): counts[y, x] for y, x in zip(*counts.nonzero(), strict=True)}
    (image,) = axes.get_images()
    shown = np.ma.getmaskarray(image.get_array())
    np.testing.assert_array_equal(shown, np.eye(10, dtype=bool))
    n_mistakes = counts.sum() - np.trace(counts)
    title = f"Confusion matrix: 257 test images, {n_mistakes} mistakes"
    assert axes.get_title(loc="left") == title


def test_a_confusion_matrix_makes_room_for_long_names(material: Material) -> None:
    """Names are whole or shortened, inside the figure, and the cells are square."""
    figure = _confusion(material, label_name="Übergröße – sehr lange Klasse im Namen " * 10)
    drawn(figure)
    box = figure.axes[0].bbox
    assert abs(box.width - box.height) < 5


def test_calibration_draws_the_bins_that_have_images(material: Material) -> None:
    """Accuracy against mean probability, and the number of images, of the test split."""
    table = material.tables["calibration"]
    rows = table[(table["split"] == "test") & (table["n"] > 0)]
    assert 1 < len(rows) < 15
    top, bottom = overview.calibration(table, "test").axes
    (container,) = top.containers
    np.testing.assert_array_equal(container[0].get_xdata(), rows["mean_probability"])
    np.testing.assert_array_equal(container[0].get_ydata(), rows["accuracy"])
    assert [bar.get_height() for bar in bottom.patches] == rows["n"].tolist()


def test_mistakes_are_the_worst_first(material: Material) -> None:
    """At most n_shown, by loss, each with label, prediction and image id."""
    table = material.tables["predictions"]
    wrong = table[(table["split"] == "test") & (table["label"] != table["prediction"])]
    wrong = wrong.sort_values("loss", ascending=False)
    assert len(wrong) > 3
    shown = lines(overview.mistakes(table, material.dataset.splits["test"], 3))
    worst = list(wrong.head(3).itertuples())
    expected = [f"is {row.label}, predicted {row.prediction}" for row in worst]
    assert [line for line in shown if line.startswith("is ")] == expected
    ids = [line.split("#")[1] for line in shown if "#" in line]
    assert ids == [str(row.image_id) for row in worst]
    assert f"{len(wrong)} of 257 test images are misclassified; the 3 with" in " ".join(shown)


def test_a_model_without_mistakes_has_the_same_figures(material: Material) -> None:
    """The sheet says so; the confusion matrix has nothing to colour."""
    table = material.tables["predictions"]
    right = table.assign(prediction=table["label"], prediction_name=table["label_name"])
    figure = overview.mistakes(right, material.dataset.splits["test"], 24)
    assert "none: all 257 test images are classified correctly" in lines(figure)
    drawn(figure)
    counts = material.tables["confusion"]
    figure = _confusion(material, count=np.where(counts["label"] == counts["prediction"], 20, 0))
    assert "Confusion matrix: 200 test images, 0 mistakes" in lines(figure)
    drawn(figure)


def test_colour_images_of_three_classes_are_drawn(
    digits: Dataset, assemble: Callable[..., Material]
) -> None:
    """Kernels and patches in colour; a matrix of nine cells."""
    material = assemble(tinted(relabelled(digits, ("a", "b", "c"))))
    assert material.kernels["conv1"].shape[-1] == material.patches["conv1"].shape[-1] == 3
    figures = draw_all(material)
    pixels = {name: drawn(figure) for name, figure in figures.items()}
    samples = pixels["samples"].reshape(-1, 3).astype(int)
    lit = samples[np.ptp(samples, axis=1) > 100]
    assert len(lit) > 1000
    assert (np.diff(lit) < 0).all()
    names = [text.get_text() for text in figures["confusion"].axes[0].get_xticklabels()]
    assert names == ["a", "b", "c"]


def test_forty_classes_are_drawn(digits: Dataset, assemble: Callable[..., Material]) -> None:
    """Too many for a count in each cell, but every figure is drawn."""
    names = tuple(f"class number {i}" for i in range(40))
    figures = draw_all(assemble(relabelled(digits, names), conv1_filters=1))
    for figure in figures.values():
        drawn(figure)
    (image,) = figures["confusion"].axes[0].get_images()
    shown: Any = image.get_array()
    assert shown.shape == (40, 40)


FORMULA = r"$\frac{$"  # an error if it is parsed
AWKWARD = (
    "<script>alert(1)</script>",
    "$5 to $9",
    r"$\frac{1}$",
    "salt & pepper",
    r"\alpha_{",
    "100%",
    FORMULA,
)


@pytest.mark.parametrize("name", ["samples", "confusion", "mistakes", "patches-conv1"])
def test_class_names_are_shown_literally(material: Material, name: str) -> None:
    """Whatever is between dollars is not a formula; nothing else is special."""
    names = {str(i): AWKWARD[i % len(AWKWARD)] for i in range(10)}
    tables = dict(material.tables)
    for table in ("confusion", "predictions"):
        columns = ("label_name", "prediction_name")
        renamed = {column: tables[table][column].map(names) for column in columns}
        tables[table] = tables[table].assign(**renamed)
    in_turn = [names[str(i % 10)] for i in range(len(tables["patches"]))]
    tables["patches"] = tables["patches"].assign(label_name=in_turn)
    dataset = replace(material.dataset, class_names=tuple(names.values()))
    figure = draw_all(replace(material, dataset=dataset, tables=tables))[name]
    drawn(figure)
    shown = [re.sub(r"\s", "", text.get_text()) for text in texts(figure)]  # without line breaks
    room = 50 if name == "patches-conv1" else 1000  # longer names are shortened
    whole = [n for n in AWKWARD if "…" not in theme.wrapped(n, room, theme.SMALL, 2)[-1]]
    assert FORMULA in whole
    for squeezed in (re.sub(r"\s", "", n) for n in whole):
        assert any(squeezed in text for text in shown), squeezed
    parsed = [text for text in texts(figure) if "$" in text.get_text() and text.get_parse_math()]
    assert parsed == []
