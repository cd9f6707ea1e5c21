"""Figures: drawn from tables and arrays, the same bytes each time, without global state."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from cnn.data.dataset import Dataset, Split
from cnn.explain.views import projections
from cnn.report.figures import contact_sheet, health, layers, overview, theme
from cnn.report.figures.contact_sheet import Sheet, Tile
from cnn.report.figures.layers import ExplainedLayer
from cnn.report.pages import body
from cnn.report.pages.body import Material
from cnn.store.refs import Kind

Draw = Callable[[Material], Figure]


def _of_conv1(material: Material, name: str) -> pd.DataFrame:
    table = material.tables[name]
    return table[table["layer"] == "conv1"]


def _layer(material: Material, name: str) -> ExplainedLayer:
    return next(one for one in body.layers_of(material) if one.name == name)


def _health(layer: ExplainedLayer) -> Figure:
    return health.draw(layer.rows, layer.name, layer.class_names)


DRAWN: dict[str, Draw] = {
    "samples": lambda m: overview.samples(m.dataset.splits["train"], m.dataset.class_names),
    "history": lambda m: overview.history(m.tables["history"]),
    "confusion": lambda m: overview.confusion(m.tables["confusion"], "test"),
    "calibration": lambda m: overview.calibration(m.tables["calibration"], "test"),
    "mistakes": lambda m: overview.mistakes(m.tables["predictions"], m.dataset.splits["test"], 24),
}
LAYERS = ("conv1", "conv2")
for _name in LAYERS:
    DRAWN |= {
        f"filters-{_name}": lambda m, n=_name: layers.filters(_layer(m, n)),
        f"health-{_name}": lambda m, n=_name: _health(_layer(m, n)),
        f"patches-{_name}": lambda m, n=_name: layers.patches(_layer(m, n)),
        f"projections-{_name}": lambda m, n=_name: layers.view(_layer(m, n), projections.VIEW),
    }
ALL = pytest.mark.parametrize("name", DRAWN)


def _png(made: Figure, folder: Path) -> bytes:
    path = folder / "figure.png"
    theme.save(made, path)
    return path.read_bytes()


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def _texts(made: Figure) -> list[str]:
    """Return every line of text that a figure shows."""
    shown: list[Text] = made.findobj(Text)
    return [line for text in shown for line in text.get_text().split("\n") if line]


def _with_table(material: Material, name: str, table: pd.DataFrame) -> Material:
    return replace(material, tables={**material.tables, name: table})


@ALL
def test_every_figure_is_a_png_of_one_width_and_the_same_bytes_twice(
    material: Material, name: str, tmp_path: Path
) -> None:
    """1040 pixels wide, white around, something drawn inside."""
    once = _png(DRAWN[name](material), tmp_path)
    picture = Image.open(BytesIO(once))
    assert (picture.format, picture.width) == ("PNG", 1040)
    pixels = _pixels(once)
    assert (pixels[[0, -1]] == 255).all(), "something is cut off at the upper or lower edge"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert _png(DRAWN[name](material), tmp_path) == once


def test_samples_are_16_training_images_with_label_and_id(material: Material) -> None:
    """Spread over the whole split, in its order."""
    train = material.dataset.splits["train"]
    lines = _texts(DRAWN["samples"](material))
    ids = [int(line[1:]) for line in lines if re.fullmatch(r"#\d+", line)]
    assert len(ids) == 16
    places = [train.ids.tolist().index(image_id) for image_id in ids]
    assert places == sorted(places)
    assert places[-1] - places[0] > 0.9 * len(train)
    shown = [line for line in lines if re.fullmatch(r"\d", line)]
    assert shown == [str(train.labels[place]) for place in places]


def test_history_draws_the_table(material: Material) -> None:
    """Accuracy and loss of both splits, and one learning rate, against the steps."""
    table = material.tables["history"]
    top, middle, bottom = DRAWN["history"](material).axes
    for axes, column in ((top, "accuracy"), (middle, "loss")):
        lines = {str(line.get_label()): line for line in axes.get_lines()}
        for split, label in (
            ("train", "training batches"),
            ("validation", "validation images"),
        ):
            rows = table[table["split"] == split]
            np.testing.assert_array_equal(lines[label].get_xdata(), rows["step"])
            np.testing.assert_array_equal(lines[label].get_ydata(), rows[column])
    (rate,) = bottom.get_lines()
    rows = table[table["split"] == "train"]
    np.testing.assert_array_equal(rate.get_ydata(), rows["learning_rate"])


def test_a_history_of_one_log_point_is_drawn(material: Material, tmp_path: Path) -> None:
    """One step, one or two rows: points without lines."""
    table = material.tables["history"]
    for rows in (table[table["step"] == 20], table[(table["step"] == 20)].iloc[:1]):
        made = overview.history(rows)
        assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040
        assert [len(axes.get_lines()) for axes in made.axes] == [len(rows), len(rows), 1]


def test_a_loss_of_nothing_is_drawn(material: Material, tmp_path: Path) -> None:
    """A loss that has no logarithm leaves a gap, not an error."""
    table = material.tables["history"].assign(loss=0.0)
    assert Image.open(BytesIO(_png(overview.history(table), tmp_path))).width == 1040


def test_confusion_shows_the_counts_of_the_split_and_colours_mistakes_only(
    material: Material,
) -> None:
    """Each count stands in its cell, rows are labels; the diagonal has no colour."""
    table = material.tables["confusion"]
    rows = table[table["split"] == "test"]
    counts = np.zeros((10, 10), int)
    counts[rows["label"], rows["prediction"]] = rows["count"]
    axes = DRAWN["confusion"](material).axes[0]
    cells = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert cells == {(x, y): counts[y, x] for y, x in zip(*counts.nonzero(), strict=True)}
    (image,) = axes.get_images()
    shown = np.ma.getmaskarray(image.get_array())
    np.testing.assert_array_equal(shown, np.eye(10, dtype=bool))
    n_mistakes = counts.sum() - np.trace(counts)
    title = f"Confusion, 257 test images, {n_mistakes} mistakes"
    assert axes.get_title(loc="left") == title


def test_calibration_draws_the_bins_that_have_images(material: Material) -> None:
    """Accuracy against mean probability, and the number of images, of the test split."""
    table = material.tables["calibration"]
    rows = table[(table["split"] == "test") & (table["n"] > 0)]
    assert 1 < len(rows) < 15
    top, bottom = DRAWN["calibration"](material).axes
    (container,) = top.containers
    np.testing.assert_array_equal(container[0].get_xdata(), rows["mean_probability"])
    np.testing.assert_array_equal(container[0].get_ydata(), rows["accuracy"])
    assert [bar.get_height() for bar in bottom.patches] == rows["n"].tolist()


def _is_wrong(table: pd.DataFrame) -> Any:
    return (table["split"] == "test") & (table["label"] != table["prediction"])


def test_mistakes_are_the_worst_first(material: Material) -> None:
    """As many as asked for, by loss, each with label, prediction and image id."""
    table = material.tables["predictions"]
    wrong = table[_is_wrong(table)].sort_values("loss", ascending=False)
    assert len(wrong) > 3
    lines = _texts(overview.mistakes(table, material.dataset.splits["test"], 3))
    expected = [f"is {row.label}, said {row.prediction}" for row in wrong.head(3).itertuples()]
    assert [line for line in lines if line.startswith("is ")] == expected
    ids = [line.split("#")[1] for line in lines if "#" in line]
    assert ids == [str(image_id) for image_id in wrong["image_id"].head(3)]
    assert f"{len(wrong)} of 257 test images are wrong; the 3 with" in " ".join(lines)


def test_a_model_without_mistakes_has_figures_all_the_same(
    material: Material, tmp_path: Path
) -> None:
    """The sheet says so; the confusion matrix has nothing to colour."""
    table = material.tables["predictions"]
    right = table.assign(prediction=table["label"], prediction_name=table["label_name"])
    made = DRAWN["mistakes"](_with_table(material, "predictions", right))
    assert "none: all 257 test images are right" in _texts(made)
    assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040
    counts = material.tables["confusion"]
    counts = counts.assign(count=np.where(counts["label"] == counts["prediction"], 20, 0))
    made = overview.confusion(counts, "test")
    assert made.axes[0].get_title(loc="left") == "Confusion, 200 test images, 0 mistakes"
    assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040


def test_filters_are_numbered_and_the_dead_are_named(material: Material, tmp_path: Path) -> None:
    """Every filter has its number; a dead one says so, in red; weights have a colour bar."""
    table = material.tables["filters"].assign(dead=lambda rows: rows["filter"] == 3)
    made = DRAWN["filters-conv1"](_with_table(material, "filters", table))
    texts: list[Text] = made.findobj(Text)
    colours = {text.get_text(): text.get_color() for text in texts}
    assert [line for line in colours if "dead" in line] == ["3 dead"]
    assert (colours["3 dead"], colours["4"]) == (theme.RED, theme.INK)
    assert {str(i) for i in range(6) if i != 3} < set(colours)
    bar = made.axes[-1]
    assert bar.get_ylabel().startswith("weight")
    low, high = bar.get_ylim()
    assert -low == high == pytest.approx(np.abs(material.kernels["conv1"]).max())
    assert _png(made, tmp_path) != _png(DRAWN["filters-conv1"](material), tmp_path)


def test_kernels_are_red_above_0_blue_below_and_nearly_white_at_0() -> None:
    """One symmetric scale: the same weight has the same colour in every kernel."""
    kernel = np.array([[[-2.0], [-1.0], [0.0], [1.0], [2.0]]], np.float32)
    found = contact_sheet.kernel_image(kernel, 2.0).astype(int)[0]
    np.testing.assert_array_equal(found[0], [5, 48, 97])
    np.testing.assert_array_equal(found[4], [103, 0, 31])
    assert found[2].min() > 240
    assert found[1][2] > found[1][0] + 50
    assert found[3][0] > found[3][2] + 50
    alone = contact_sheet.kernel_image(kernel[:, 3:4], 2.0)
    np.testing.assert_array_equal(alone[0, 0], found[3])


def test_kernels_of_colour_images_are_drawn_in_colour() -> None:
    """Three channels are red, green and blue around a grey 0."""
    kernel = np.array([[[0, 0, 0], [1, -1, 0], [-1, 0, 1]]], np.float32)
    found = contact_sheet.kernel_image(kernel, 1.0)[0]
    np.testing.assert_array_equal(found, [[127, 127, 127], [255, 0, 127], [0, 127, 255]])


@pytest.mark.parametrize("layer", LAYERS)
def test_patches_stand_in_rows_of_filters_with_activation_and_label(
    material: Material, layer: str
) -> None:
    """Every mined patch is shown with both."""
    table = material.tables["patches"]
    rows = table[table["layer"] == layer].itertuples()
    lines = _texts(DRAWN[f"patches-{layer}"](material))
    expected = sorted(f"{row.activation:.2f}   {row.label_name}" for row in rows)
    assert sorted(line for line in lines if re.fullmatch(r"\d+\.\d\d   \d", line)) == expected


def test_a_dead_filter_and_one_with_few_patches_leave_gaps(
    material: Material, tmp_path: Path
) -> None:
    """Filter 0 has no patches and says so, filter 1 has three; the other rows stay."""
    table = _of_conv1(material, "patches")
    fewer = table[(table["filter"] > 1) | ((table["filter"] == 1) & (table["rank"] <= 3))]
    made = DRAWN["patches-conv1"](_with_table(material, "patches", fewer))
    lines = _texts(made)
    n_before = _texts(DRAWN["patches-conv1"](material)).count("never")
    assert lines.count("never") == n_before + 1
    assert sum(bool(re.fullmatch(r"\d+\.\d\d   \d", line)) for line in lines) == len(fewer)
    assert {str(f) for f in range(6)} < set(lines)
    assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040


def test_a_layer_of_dead_filters_is_drawn(material: Material, tmp_path: Path) -> None:
    """No patches at all: every row says dead."""
    made = DRAWN["patches-conv1"](
        _with_table(material, "patches", material.tables["patches"].iloc[:0])
    )
    assert _texts(made).count("never") == 6
    assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040


def _relabelled(digits: Dataset, names: tuple[str, ...]) -> Dataset:
    """Return `digits` with its images spread over len(names) classes."""
    splits = {
        name: Split(split.images, np.arange(len(split)) % len(names), split.ids)
        for name, split in digits.splits.items()
    }
    return Dataset("folder", names, splits, {})


def _coloured(dataset: Dataset) -> Dataset:
    tint = np.array([1, 0.6, 0.2])
    splits = {
        name: replace(split, images=(split.images * tint).astype(np.uint8))
        for name, split in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def test_colour_images_of_three_classes_are_drawn(
    digits: Dataset, assemble: Callable[..., Material], tmp_path: Path
) -> None:
    """RGB kernels and patches; a matrix of nine cells."""
    material = assemble(_coloured(_relabelled(digits, ("a", "b", "c"))))
    assert material.kernels["conv1"].shape[-1] == material.patches["conv1"].shape[-1] == 3
    drawn = {name: draw(material) for name, draw in DRAWN.items()}
    for name, made in drawn.items():
        assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040, name
    pixels = _pixels(_png(drawn["samples"], tmp_path)).reshape(-1, 3).astype(int)
    lit = pixels[(np.ptp(pixels, axis=1) > 100)]
    assert len(lit) > 1000
    assert (lit[:, 0] > lit[:, 1]).all()
    assert (lit[:, 1] > lit[:, 2]).all()
    names = [text.get_text() for text in drawn["confusion"].axes[0].get_xticklabels()]
    assert names == ["a", "b", "c"]


def test_forty_classes_are_drawn(
    digits: Dataset, assemble: Callable[..., Material], tmp_path: Path
) -> None:
    """Too many for a count in each cell; the matrix and all other figures are there."""
    names = tuple(f"class number {i}" for i in range(40))
    material = assemble(_relabelled(digits, names), conv1_filters=1)
    for name, draw in DRAWN.items():
        assert Image.open(BytesIO(_png(draw(material), tmp_path))).width == 1040, name
    (image,) = DRAWN["confusion"](material).axes[0].get_images()
    shown: Any = image.get_array()
    assert shown.shape == (40, 40)


AWKWARD = (
    "<script>alert(1)</script>",
    "$5 to $9",
    r"$\frac{1}$",
    "salt & pepper",
    r"\alpha_{",
    "100%",
)
FORMULA = r"$\frac{$"  # an error, were it read as one


@pytest.mark.parametrize("name", ["samples", "confusion", "mistakes", "patches-conv1"])
def test_class_names_are_shown_as_they_are(material: Material, name: str, tmp_path: Path) -> None:
    """Dollars are not formulas, whatever stands between them; nothing else is special."""
    train, test = (material.dataset.splits[split] for split in ("train", "test"))
    splits = {"train": train, "test": test}
    names = {str(i): [*AWKWARD, FORMULA][i % (len(AWKWARD) + 1)] for i in range(10)}
    columns = ["label_name", "prediction_name"]
    tables = {
        table: material.tables[table].assign(
            **{column: material.tables[table][column].map(names) for column in columns}
        )
        for table in ("confusion", "predictions", "patches")
    }
    in_turn = [names[str(i % 10)] for i in range(len(tables["patches"]))]
    tables["patches"]["label_name"] = in_turn  # six filters need not like images of every class
    dataset = Dataset("folder", tuple(names.values()), splits, {})
    awkward = replace(material, dataset=dataset, tables={**material.tables, **tables})
    made = DRAWN[name](awkward)
    assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040
    texts: list[Text] = made.findobj(Text)
    whole = [re.sub(r"\s", "", text.get_text()) for text in texts]  # long ones are in lines
    room = 50 if name == "patches-conv1" else 1000  # the middle of longer ones is left out there
    wanted = [
        n for n in (*AWKWARD, FORMULA) if "…" not in theme.wrapped(n, room, theme.SMALL, 2)[-1]
    ]
    assert FORMULA in wanted
    for squeezed in (re.sub(r"\s", "", n) for n in wanted):
        assert any(squeezed in text for text in whole), squeezed
    shown = [text for text in texts if "$" in text.get_text()]
    assert not any(text.get_parse_math() for text in shown), "dollars would be read as a formula"


def test_a_name_is_written_by_its_number_where_the_font_lacks_a_letter(
    material: Material, tmp_path: Path
) -> None:
    """Boxes in place of letters help nobody; matplotlib's warning would be an error here."""
    train = material.dataset.splits["train"]
    made = overview.samples(train, (*"012345678", "九"))
    assert Image.open(BytesIO(_png(made, tmp_path))).width == 1040
    first_words = {text.get_text().split("\n")[0] for text in made.findobj(Text)}
    assert "class 9" in first_words
    assert "8" in first_words


LONG = "Übergröße – sehr lange Klasse mit_vielen_Wörtern im Namen " * 10


@pytest.mark.parametrize("name", [LONG, LONG.replace(" ", "_")])
@pytest.mark.parametrize("room", [60, 110, 500])
def test_a_long_text_is_put_in_lines_that_fit(name: str, room: int) -> None:
    """Up to the last line nothing is lost; there the middle is left out, not the end."""
    lines = theme.wrapped(name, room, theme.SMALL, 4)
    assert len(lines) == 4
    assert max(theme.text_width(line, theme.SMALL) for line in lines) <= room
    squeezed = re.sub(r"\s", "", name)
    begun = re.sub(r"\s", "", "".join(lines[:3]))
    assert squeezed.startswith(begun)
    first, last = lines[3].split("…")
    assert squeezed[len(begun) :].startswith(re.sub(r"\s", "", first))
    assert name.endswith(last)


@pytest.mark.parametrize("text", ["", "7", "two words", "Übergröße"])
def test_a_short_text_is_left_as_it_is(text: str) -> None:
    """What fits is one line."""
    assert theme.wrapped(text, 300, theme.SMALL, 4) == (text,)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("T-shirt/top", ["T-shirt/", "top"]),
        ("Ankle boot", ["Ankle", "boot"]),
        ("long-sleeve_shirt", ["long-", "sleeve_", "shirt"]),
        ("Pullover", ["Pullover"]),
    ],
)
def test_lines_end_where_words_do(name: str, lines: list[str]) -> None:
    """A caption under a patch is broken at a space or behind a mark, not within a word."""
    assert list(theme.wrapped(name, 70, theme.SMALL, 3)) == lines


def test_a_confusion_matrix_makes_room_for_its_names(material: Material) -> None:
    """Names beside it are whole or shortened, inside of the picture, and the cells are square."""
    table = material.tables["confusion"].assign(label_name=LONG)
    made = overview.confusion(table, "test")
    made.canvas.draw()
    axes = made.axes[0]
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label):
        box = label.get_window_extent()
        assert (box.x0 >= 0, box.y0 >= 0) == (True, True), label.get_text()
    assert abs(axes.bbox.width - axes.bbox.height) < 5


@pytest.mark.parametrize("shape", [(300, 300, 1), (40, 1200, 1), (256, 256, 3)])
def test_images_wider_than_their_place_are_drawn_beside_each_other(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    """Large images are made smaller: none covers another, none is cut off."""
    height, width, channels = shape
    colours = np.arange(1, 17, dtype=np.uint8) * 10
    images = np.broadcast_to(colours[:, None, None, None], (16, height, width, channels))
    split = Split(np.ascontiguousarray(images), np.zeros(16, np.int64), np.arange(16))
    pixels = _pixels(_png(overview.samples(split, ("0", "1")), tmp_path))
    areas = [int((pixels == colour).all(axis=2).sum()) for colour in colours]
    assert min(areas) > 0.9 * max(areas) > 0
    assert pixels.shape[1] == 1040


def test_patches_wider_than_their_place_are_drawn_beside_each_other(
    material: Material, tmp_path: Path
) -> None:
    """A layer that sees 200 pixels has smaller pictures, not ones that cover each other."""
    shades = np.arange(1, 25, dtype=np.uint8).reshape(2, 12) * 10
    pixels = np.ascontiguousarray(
        np.broadcast_to(shades[..., None, None, None], (2, 12, 200, 200, 1))
    )
    one = _layer(material, "conv1")
    rows = [
        {**one.patches[0], "filter": f, "rank": rank} for f in range(2) for rank in range(1, 13)
    ]
    kernels = np.ones((2, 200, 200, 1), np.float32)
    wide = replace(one, pixels=pixels, patches=rows, kernels=kernels)
    shown = _pixels(_png(layers.patches(wide), tmp_path))
    areas = [int((shown == shade).all(axis=2).sum()) for shade in shades.ravel()]
    assert min(areas) > 0.9 * max(areas) > 0


def test_tiles_are_whole_numbers_of_pixels(rng: np.random.Generator, tmp_path: Path) -> None:
    """Each pixel of a tile is one square of its very colour; nothing is blurred."""
    picture = rng.permutation(np.arange(1, 241, dtype=np.uint8))[: 5 * 4 * 3].reshape(5, 4, 3)
    tile = Tile(picture, ["a line", "another"])
    pixels = _pixels(_png(Sheet("Title", "note", [[tile, None, tile]]).draw(), tmp_path))
    sides, places = set(), {}
    for (y, x), _ in np.ndenumerate(picture[..., 0]):
        rows, columns = np.nonzero((pixels == picture[y, x]).all(axis=2))
        half = columns < columns.mean()
        side = np.ptp(rows) + 1
        assert np.ptp(columns[half]) + 1 == side
        assert half.sum() == side**2 == len(rows) - half.sum()
        sides.add(int(side))
        places[y, x] = (rows.min() // side, columns[half].min() // side)
    assert len(sides) == 1
    top, left = places[0, 0]
    assert places == {(y, x): (top + y, left + x) for y, x in places}


SCRIPT = """
import hashlib, json, os, pathlib, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from cnn.report.pages import body
material = body.gather({kind: pathlib.Path(path) for kind, path in json.loads(sys.argv[1]).items()})
def write(i):
    with tempfile.TemporaryDirectory() as folder:
        body.write(pathlib.Path(folder), material, 24)
        paths = sorted(pathlib.Path(folder).iterdir())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
n_threads = int(sys.argv[2])
with ThreadPoolExecutor(n_threads) as pool:
    written = list(pool.map(write, range(n_threads)))
modules = [name for name in sys.modules if name.startswith(("matplotlib.pyplot", "tkinter"))]
modules += [name for name in ("tensorflow", "keras", "prefect") if name in sys.modules]
print(json.dumps({"written": written, "modules": modules}))
"""


def test_four_threads_without_a_display_draw_the_same_bytes(
    artifacts: dict[Kind, Path], material: Material, tmp_path: Path
) -> None:
    """With Tk named as backend and no screen: no window, no pyplot, no state in common."""
    surroundings = {**os.environ, "MPLBACKEND": "TkAgg"}
    surroundings.pop("DISPLAY", None)
    folders = json.dumps({kind: str(path) for kind, path in artifacts.items()})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folders, "4"],
        env=surroundings,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["modules"] == []
    first, *others = found["written"]
    assert others == [first] * 3
    here = {
        name: hashlib.sha256(_png(draw(material), tmp_path)).hexdigest()
        for name, draw in DRAWN.items()
    }
    there = {name.removesuffix(".png"): digest for name, digest in first.items() if "png" in name}
    assert there == here


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ([0.8, 0.995, 0.999], [0.97, 0.976, 0.9766]),
        ([0.5, 0.9, 0.95], [0.9, 0.99, 0.999]),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        ([0.9, 0.5, 0.1], [0.2, 0.1, 0.0]),
    ],
)
def test_the_accuracy_axis_shows_where_every_split_ends(
    material: Material, train: list[float], validation: list[float]
) -> None:
    """Neither curve may lie outside of the picture because the other is better."""
    steps = [100, 200, 300]
    rows = pd.DataFrame(
        {
            "step": steps * 2,
            "split": ["train"] * 3 + ["validation"] * 3,
            "loss": 1.0,
            "accuracy": train + validation,
            "learning_rate": 1e-3,
            "status": "ok",
        }
    )
    axes = overview.history(rows).axes[0]
    low, high = axes.get_ylim()
    for line in axes.get_lines():
        assert low < line.get_ydata()[-1] < high
