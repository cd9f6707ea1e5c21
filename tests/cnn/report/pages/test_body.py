"""The report's body: every figure inside, all text escaped, the same bytes each time."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn import formatting
from cnn.data.dataset import Dataset, Split
from cnn.progress import Progress
from cnn.report import filter_status
from cnn.report.figures import overview
from cnn.report.pages import body, html
from cnn.report.pages.body import Material

FIGURES = [
    "samples",
    "history",
    "confusion",
    "calibration",
    "mistakes",
    *(
        f"{name}-{layer}"
        for layer in ("conv1", "conv2")
        for name in ("filters", "health", "patches", "projections")
    ),
]
IN_READING_ORDER = [
    *FIGURES[:5],
    *(
        f"{name}-{layer}"
        for layer in ("conv1", "conv2")
        for name in ("health", "filters", "patches", "projections")
    ),
]
VOID = {"img", "br", "hr", "meta", "link"}


class _Page(HTMLParser):
    """Collects text, tags and pictures; fails where tags are not closed as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.figures: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if tag == "img":
            assert values["alt"]
            if "class" not in values:
                self.figures.append(values["src"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def _written(material: Material, folder: Path, n_mistakes: int = 24) -> _Page:
    body.write(folder, material, n_mistakes)
    return _Page((folder / html.BODY_NAME).read_text(encoding="utf-8"))


def _decoded(uri: str) -> bytes:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data, validate=True)


@pytest.fixture(scope="module")
def folder(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on `digits`."""
    made = tmp_path_factory.mktemp("report")
    body.write(made, material, 24)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> _Page:
    """Its body, parsed."""
    return _Page((folder / html.BODY_NAME).read_text(encoding="utf-8"))


def test_every_figure_is_written_and_stands_in_the_body(folder: Path, page: _Page) -> None:
    """The pictures of the body are the bytes of the files, each once, in reading order."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{name}.png" for name in FIGURES] + [html.BODY_NAME, html.PICTURES_NAME]
    )
    expected = [(folder / f"{name}.png").read_bytes() for name in IN_READING_ORDER]
    assert [_decoded(uri) for uri in page.figures] == expected


def test_the_same_material_gives_the_same_bytes(
    material: Material, folder: Path, tmp_path: Path
) -> None:
    """No clock, no path, no order of a set gets into any file; progress counts the figures."""
    reports: list[Progress] = []
    body.write(tmp_path, material, 24, reports.append)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert [(item.done, item.total) for item in reports] == [
        (i, len(FIGURES)) for i in range(1, len(FIGURES) + 1)
    ]


def test_the_body_needs_no_network_and_runs_no_script(folder: Path, page: _Page) -> None:
    """No address outside of the file, no script, no handler."""
    text = (folder / html.BODY_NAME).read_text(encoding="utf-8")
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "form"}
    assert "://" not in text
    assert not re.search(r"<[^>]*\son\w+=", text)


def test_headline_figures_are_those_of_the_tables(page: _Page, material: Material) -> None:
    """Accuracy with its interval, mistakes and images; the data set and the training."""
    table = material.tables["predictions"]
    test = table[table["split"] == "test"]
    n_wrong = int((test["label"] != test["prediction"]).sum())
    metrics = material.tables["metrics"]
    row = metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy")].iloc[0]
    assert row["value"] == 1 - n_wrong / 257
    assert (
        f"test accuracy {100 * row['value']:.2f} % "
        f"95 % interval {100 * row['ci_low']:.2f} % to {100 * row['ci_high']:.2f} %"
    ) in page.text
    assert f"test mistakes {n_wrong} of 257 images" in page.text
    assert "128 images held out from training" in page.text
    assert "28 x 28 x 1 pixels, 10 classes; 1,412 train, 128 validation, 257 test" in page.text
    assert "160 steps of 64 images, Adam, peak learning rate 0.008 " in page.text
    assert "(linear schedule), seed 0." in page.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer": "sgd"}, "SGD with Nesterov's momentum"),
        ({"optimizer": "rmsprop", "weight_decay": 0.1}, "RMSprop"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "AdamW"),
        ({"optimizer": "adam", "weight_decay": 0.0}, "Adam"),
    ],
)
def test_the_optimizer_is_named(
    material: Material, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    """By the name that the field gives it."""
    training = {**material.training, **changes}
    page = _written(replace(material, training=training), tmp_path)
    assert f"images, {expected}, peak learning rate" in page.text


def test_a_model_from_before_there_were_several_optimizers_has_adam(
    material: Material, tmp_path: Path
) -> None:
    """Its settings name none, and the report of such a model can be made anew."""
    new = ("optimizer", "weight_decay", "label_smoothing", "augment_shear")
    training = {name: value for name, value in material.training.items() if name not in new}
    page = _written(replace(material, training=training), tmp_path)
    assert "images, Adam, peak learning rate" in page.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dropout": 0.0}, "training batches"),
        ({"dropout": 0.5}, "training batches, with dropout"),
        ({"dropout": 0.0, "augment_shear": 5.0}, "training batches, augmented"),
        ({"dropout": 0.5, "augment_shift": 1.0}, "training batches, with dropout, augmented"),
    ],
)
def test_the_legend_says_what_made_the_batches_harder(
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, float],
    expected: str,
) -> None:
    """And nothing that they were not trained with."""
    named: list[str] = []
    draw = overview.history
    monkeypatch.setattr(overview, "history", lambda t, name: named.append(name) or draw(t, name))
    body.write(tmp_path, replace(material, training={**material.training, **changes}), 24)
    assert named == [expected]


def test_the_worst_confusions_are_named(page: _Page, material: Material) -> None:
    """The most frequent pair of label and prediction comes first, with its count."""
    table = material.tables["confusion"]
    wrong = table[(table["split"] == "test") & (table["label"] != table["prediction"])]
    row = wrong.loc[wrong["count"].idxmax()]
    times = "times" if row["count"] > 1 else "time"
    expected = f"confused: {row['label']} read as {row['prediction']} ({row['count']} {times})"
    assert expected in page.text


def test_each_class_and_each_filter_has_its_row(page: _Page, material: Material) -> None:
    """Precision, recall and f1 of a class; a filter's figures, its nearest and the cosine."""
    per_class = material.tables["per_class"]
    for row in per_class[per_class["split"] == "test"].itertuples():
        shares = " ".join(f"{100 * v:.2f} %" for v in (row.precision, row.recall, row.f1))
        assert f"{row.label_name} {row.support} {shares}" in page.text
    rows = material.tables["filters"]
    row = rows[~rows["dead"]].iloc[-1]
    words = filter_status.of(row).words(material.dataset.class_names)
    assert (
        " ".join(
            f"{row['filter']} {words} {100 * row['fraction_active']:.1f} % "
            f"{row['max_activation']:.3f} {row['selectivity']:.3f} {row['preferred_label']:.0f} "
            f"{row['sparsity']:.3f} {row['smoothness']:.3f} {row['l2_norm']:.3f} "
            f"{row['nearest_filter']:.0f} {row['nearest_cosine']:.3f} "
            f"{row['correlated_filter']:.0f} {row['correlation']:.3f}".split()
        )
        in page.text
    )


def test_pictures_for_the_ui_are_600_pixels_wide(folder: Path) -> None:
    """One for each figure, no word beside them, every colour within 25 of 255 levels."""
    text = (folder / html.PICTURES_NAME).read_text(encoding="utf-8")
    found = re.findall(r"!\[(\S+)\]\((\S+)\)", text)
    assert [name.replace("\\", "") for name, _ in found] == FIGURES
    assert re.sub(r"!\[\S+\]\(\S+\)", "", text).strip() == ""
    for name, (_, uri) in zip(FIGURES, found, strict=True):
        original = Image.open(BytesIO((folder / f"{name}.png").read_bytes()))
        picture = Image.open(BytesIO(_decoded(uri)))
        assert (picture.format, picture.width) == ("PNG", 600)
        assert picture.height == pytest.approx(original.height * 600 / 1040, abs=1)
        resized = original.convert("RGB").resize(picture.size, Image.Resampling.LANCZOS)
        levels = np.asarray(picture.convert("RGB"), int) - np.asarray(resized, int)
        assert np.abs(levels).max() < 25, name


def _with_tables(material: Material, **changes: Any) -> Material:
    return replace(material, tables={**material.tables, **changes})


def test_without_validation_images_nothing_is_said_of_them(
    material: Material, tmp_path: Path
) -> None:
    """Every table without rows of that split; the history without its line."""
    tables = {
        name: table[table["split"] != "validation"] if "split" in table else table
        for name, table in material.tables.items()
    }
    page = _written(_with_tables(material, **tables), tmp_path)
    assert "validation accuracy" not in page.text
    assert "test accuracy" in page.text
    assert len(page.figures) == len(FIGURES)


def test_a_model_without_mistakes_has_a_report(material: Material, tmp_path: Path) -> None:
    """100 %, no confusions named, and the sheet of mistakes is there all the same."""
    predictions, confusion, metrics = (
        material.tables[name] for name in ("predictions", "confusion", "metrics")
    )
    right = _with_tables(
        material,
        predictions=predictions.assign(prediction=predictions["label"]),
        confusion=confusion.assign(
            count=np.where(confusion["label"] == confusion["prediction"], 1, 0)
        ),
        metrics=metrics.assign(value=1.0, ci_low=0.985, ci_high=1.0),
    )
    page = _written(right, tmp_path)
    assert "test accuracy 100.00 %" in page.text
    assert "test mistakes 0 of 257 images" in page.text
    assert "confused" not in page.text
    assert len(page.figures) == len(FIGURES)


def test_what_is_not_known_reads_na(material: Material, tmp_path: Path) -> None:
    """A dead filter has no preference and no nearest; a class never predicted no precision."""
    filters, per_class = material.tables["filters"], material.tables["per_class"]
    unknown = ["selectivity", "preferred_label", "sparsity", "smoothness", "nearest_filter"]
    unknown += ["nearest_cosine", "correlated_filter", "correlation"]
    filters = filters.copy()
    filters.loc[filters["filter"] == 2, unknown] = None
    filters.loc[filters["filter"] == 2, ["dead", "fraction_active", "max_activation"]] = True, 0, 0
    per_class = per_class.copy()
    per_class.loc[per_class["label"] == 7, ["precision", "f1"]] = None
    page = _written(_with_tables(material, filters=filters, per_class=per_class), tmp_path)
    row = filters[filters["filter"] == 2].iloc[0]
    expected = f"2 dead 0.0 % 0.000 n/a n/a n/a n/a {row['l2_norm']:.3f} n/a n/a n/a n/a"
    assert expected in page.text
    seven = per_class[(per_class["split"] == "test") & (per_class["label"] == 7)].iloc[0]
    assert f"7 {seven['support']} n/a {100 * seven['recall']:.2f} % n/a" in page.text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text)


AWKWARD = ("<script>alert(1)</script>", "$5 to $9", "salt & pepper", '"><img src=x onerror=1>')


def test_class_names_are_text_and_nothing_else(
    digits: Dataset, assemble: Callable[..., Material], tmp_path: Path
) -> None:
    """Angle brackets, quotes, ampersands and dollars come out as they went in."""
    splits = {
        name: Split(split.images, np.arange(len(split)) % 4, split.ids)
        for name, split in digits.splits.items()
    }
    material = assemble(Dataset("<b>folder", AWKWARD, splits, {}))
    page = _written(material, tmp_path)
    text = (tmp_path / html.BODY_NAME).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "salt &amp; pepper" in text
    assert not page.tags & {"script", "b"}
    assert len(page.figures) == len(FIGURES)
    for name in AWKWARD:
        assert name in page.text
    assert "<b>folder: 28 x 28 x 1 pixels, 4 classes" in page.text


@pytest.mark.parametrize("write", [formatting.number, formatting.percent, formatting.seconds])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_reads_na(write: Callable[[Any], str], value: Any) -> None:
    """Null, NaN and infinity, as number, percentage and duration."""
    assert write(value) == "n/a"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.number(0.00123456), "0.001235"),
        (formatting.number(12345678), "1.235e+07"),
        (formatting.number(1.5, ".3f"), "1.500"),
        (formatting.number(np.float32(2)), "2"),
        (formatting.percent(0.98765), "98.77 %"),
        (formatting.percent(1), "100.00 %"),
        (formatting.percent(0), "0.00 %"),
        (formatting.percent(0.5, 1), "50.0 %"),
        (formatting.seconds(0.44), "0.4 s"),
        (formatting.seconds(12.3), "12 s"),
        (formatting.seconds(59.7), "1 min 00 s"),
        (formatting.seconds(200), "3 min 20 s"),
    ],
)
def test_numbers_read_as_people_say_them(shown: str, expected: str) -> None:
    """Four digits, per cent, seconds and minutes."""
    assert shown == expected
