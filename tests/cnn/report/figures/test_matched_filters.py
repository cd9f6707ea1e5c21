"""The pairs of two trainings as a picture, and what is said of a comparison."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from cnn.compare import summary
from cnn.compare.comparison import Comparison, LayerView, MatchedLayer, Predictions
from cnn.compare.matching import Match, Pair, Status
from cnn.data.dataset import Split
from cnn.explain.patches import Patches
from cnn.report import comparison as report_comparison
from cnn.report.figures import contact_sheet, matched_filters, theme
from cnn.report.figures.contact_sheet import Tile
from cnn.report.pages import html, page
from cnn.runs.records import ComparedWith
from cnn.store.refs import Kind
from cnn.tables import parquet
from tests.cnn.runs.test_runs import record

PAIRS = [
    Pair(0, 1, "same", 0.97),
    Pair(1, 0, "changed", 0.5),
    Pair(2, 3, "dead"),
    Pair(3, None, "lost"),
    Pair(None, 2, "new"),
]


Shape = tuple[int, int, int]


def look(
    rng: np.random.Generator, kernel: Shape, silent: tuple[int, ...], patch: Shape | None = None
) -> LayerView:
    """Return a layer of four filters; its kernels weigh pixels unless patches differ in shape."""
    pixels = rng.integers(1, 255, (4, 4, *(patch or kernel)), np.uint8)
    rows = [
        {"filter": i, "rank": rank, "activation": 5.0 - rank}
        for i in range(4)
        if i not in silent
        for rank in range(1, 4)  # the fourth position does not fire
    ]
    kernels = rng.normal(0, 1, (4, *kernel)).astype(np.float32)
    return LayerView(kernels, Patches("conv1", rows, {"patches": pixels}))


@pytest.fixture
def layer(rng: np.random.Generator) -> MatchedLayer:
    """A layer with a pair of each status; kernels are 5 x 5 before and 3 x 3 after."""
    before, after = look(rng, (5, 5, 1), silent=(2,)), look(rng, (3, 3, 1), silent=(3,))
    return MatchedLayer(Match("conv1", PAIRS, 0.25), before, after)


def comparison(layer: MatchedLayer) -> Comparison:
    names = np.array(["a", "b", "c"])
    said = Predictions(names[[0, 1, 2, 0]], names[[0, 2, 1, 1]], names[[2, 1, 0, 0]])
    changed = [
        {
            "image_id": i,
            "split": "test",
            "label": 0,
            "prediction_before": 1,
            "prediction_after": 0,
            "label_name": "<b>",
            "prediction_before_name": "b",
            "prediction_after_name": "a",
            "right_before": False,
            "right_after": i != 2,
        }
        for i in (1, 2, 3)
    ]
    return Comparison([layer], {"conv2": "it is <missing>"}, said, [], changed)


def split() -> Split:
    """Return the images of that comparison."""
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 6, 6, 1), np.uint8)
    return Split(images, np.zeros(4, np.int64), np.arange(4))


def drawn_tiles(monkeypatch: pytest.MonkeyPatch, layer: MatchedLayer) -> list[Tile]:
    """Return the tiles of a layer's picture in reading order."""
    kept: list[Any] = []

    def keep(sheet: contact_sheet.Sheet) -> None:
        kept.append(sheet)

    monkeypatch.setattr(contact_sheet.Sheet, "draw", keep)
    matched_filters.draw(layer)
    return [tile for row in kept[0].rows for tile in row if tile is not None]


def halves(tile: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    width = tile.picture.shape[0]
    return tile.picture[:, :width], tile.picture[:, -width:]


def test_what_is_new_lost_or_changed_comes_first(
    layer: MatchedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its numbers, its status and its correlation, and whether it never fires."""
    assert [tuple(tile.lines) for tile in drawn_tiles(monkeypatch, layer)] == [
        ("none → 2", "new"),
        ("3 → none", "lost"),
        ("1 → 0", "changed 0.50"),
        ("2 → 3", "dead", "never fires"),
        ("0 → 1", "same 0.97"),
    ]


def test_a_tile_is_both_kernels_and_grey_where_there_is_none(
    layer: MatchedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one left, the later one, which is smaller, in the middle at the right."""
    new, lost, changed, *_ = (halves(tile) for tile in drawn_tiles(monkeypatch, layer))
    largest = max(float(np.abs(item.kernels).max()) for item in (layer.before, layer.after))
    before, after = (
        contact_sheet.kernel_image(item.kernels[i], largest)
        for item, i in ((layer.before, 1), (layer.after, 0))
    )
    assert np.array_equal(changed[0], before)
    assert np.array_equal(changed[1][1:4, 1:4], after)
    assert (changed[1][0] == 255).all()
    for missing in (new[0], lost[1]):
        assert np.unique(missing).size == 1
        assert 0 < missing[0, 0, 0] < 255


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_kernels_that_are_no_pictures_give_way_to_patches(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    """The strongest four in reading order, white where fewer positions fire.

    Three channels below are not red, green and blue.
    """
    looks = [look(rng, (5, 5, channels), silent=(), patch=(6, 6, 1)) for _ in range(2)]
    (tile,) = drawn_tiles(monkeypatch, MatchedLayer(Match("conv2", PAIRS[:1], 0.1), *looks))
    left, right = halves(tile)
    pixels = looks[0].patches.pixels[0]
    assert np.array_equal(left[:6, :6, 0], pixels[0, ..., 0])
    assert np.array_equal(left[:6, 7:, 0], pixels[1, ..., 0])
    assert np.array_equal(left[7:, :6, 0], pixels[2, ..., 0])
    assert (left[7:, 7:] == 255).all()
    assert np.array_equal(right[:6, :6, 0], looks[1].patches.pixels[1, 0, ..., 0])


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_a_layer_of_64_filters_is_drawn_in_the_common_width(
    rng: np.random.Generator, tmp_path: Path, channels: int
) -> None:
    """The same bytes twice; the title counts, the note says what unrelated filters reach."""
    patch = (6, 6, 1) if channels == 8 else None
    before, after = (look(rng, (5, 5, channels), silent, patch) for silent in ((0,), ()))
    found = [Pair(i % 4, (i + 1) % 4, "same" if i % 2 else "changed", 0.9) for i in range(64)]
    layer = MatchedLayer(Match("conv2", found, 0.25), before, after)
    made = [matched_filters.draw(layer), matched_filters.draw(layer)]
    for i, figure in enumerate(made):
        theme.save(figure, tmp_path / f"{i}.png")
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.width == theme.WIDTH
    shown: list[Text] = made[0].findobj(Text)
    text = " ".join(item.get_text() for item in shown)
    assert "Filters of conv2 before and after: 32 the same, 32 changed" in text
    assert "unrelated filters reach 0.25" in text


def test_a_picture_of_very_many_pairs_says_that_it_has_not_all(
    rng: np.random.Generator,
) -> None:
    """Those that are alike are left out."""
    statuses: list[Status] = [*["same"] * 250, "changed"]
    found = [Pair(0, 0, status, 0.95) for status in statuses]
    looks = look(rng, (3, 3, 1), ()), look(rng, (3, 3, 1), ())
    shown: list[Text] = matched_filters.draw(
        MatchedLayer(Match("conv1", found, 0.2), *looks)
    ).findobj(Text)
    lines = [line for item in shown for line in item.get_text().split("\n")]
    assert lines.count("same 0.95") == 199
    assert lines.count("changed 0.95") == 1
    assert any("the first 200 of 250 the same, 1 changed" in line for line in lines)


def test_counts_in_words_leave_out_what_there_is_not() -> None:
    """In the order in which people ask."""
    counts = {"same": 21, "changed": 3, "dead": 0, "lost": 1, "new": 1}
    assert summary.filter_words(counts) == "21 the same, 3 changed, 1 lost, 1 new"


def test_the_files_of_a_comparison_hold_what_was_found(layer: MatchedLayer, tmp_path: Path) -> None:
    """Both tables, the pictures, the counts, and the change in accuracy with its interval."""
    report_comparison.write(tmp_path, comparison(layer), split())
    assert {path.name for path in tmp_path.iterdir()} == {
        "matches.parquet",
        "changed_predictions.parquet",
        "matches-conv1.png",
        "changed.png",
        "comparison.json",
    }
    ids = parquet.read(tmp_path / "changed_predictions.parquet")["image_id"].to_pylist()
    assert ids == [1, 2, 3]
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert told["layers"] == [
        {
            "layer": "conv1",
            **dict.fromkeys(("same", "changed", "dead", "lost", "new"), 1),
            "null_correlation": 0.25,
        }
    ]
    accuracy = told["accuracy"]
    assert (accuracy["before"], accuracy["after"], accuracy["change"]) == (0.25, 0.5, 0.25)
    assert accuracy["ci_low"] < 0.25 < accuracy["ci_high"]
    assert summary.prediction_words(told) == (
        "4 of 4 test images have another prediction: 2 became right, 1 became wrong and 1 are "
        "wrong in another way"
    )


def composed(**changes: Any) -> str:
    environment = {"python": "3", "tensorflow": "2", "keras": "3", "numpy": "2", "precision": "f"}
    item = record(steps=(), environment=environment, compared=ComparedWith(run="earlier-run"))
    folder, section = changes.pop("folder", None), changes.pop("section", None)
    artifacts: dict[Kind, Path] = {"comparison": folder} if folder else {}
    return page.compose(item.model_copy(update=changes), "", artifacts, section)


def test_the_page_shows_the_comparison(layer: MatchedLayer, tmp_path: Path) -> None:
    """Counts, pictures as they were written, changed predictions; text from data is escaped."""
    report_comparison.write(tmp_path, comparison(layer), split())
    text = composed(folder=tmp_path, section=page.comparison_section(tmp_path))
    assert "Compared with the promoted model of earlier-run" in text
    assert "1 the same, 1 changed, 1 dead, 1 lost, 1 new; unrelated filters reach" in text
    assert html.data_uri((tmp_path / "matches-conv1.png").read_bytes()) in text
    assert html.data_uri((tmp_path / "changed.png").read_bytes()) in text
    assert "Test accuracy 25.00 % before, 50.00 % now: +25.00 points (95 % interval -" in text
    assert "conv2 could not be compared: it is &lt;missing&gt;" in text
    assert text.count("<td>&lt;b&gt;</td>") == 3
    assert text.count("right now") == 2
    assert "tables/matches.parquet" in text
    assert "images whose prediction changed, those that became wrong first" in text


def test_the_page_has_no_picture_of_changed_images_where_there_are_none(
    layer: MatchedLayer, tmp_path: Path
) -> None:
    """It would show nothing."""
    report_comparison.write(tmp_path, replace(comparison(layer), changed=[]), split())
    text = composed(folder=tmp_path, section=page.comparison_section(tmp_path))
    assert html.data_uri((tmp_path / "changed.png").read_bytes()) not in text


def test_the_page_says_why_there_is_no_comparison() -> None:
    """And nothing where nothing was promoted."""
    failed = ComparedWith(run="earlier-run", problem="model.keras is damaged")
    text = composed(compared=failed)
    assert "It could not be compared: model.keras is damaged." in text
    assert "tables/matches.parquet" not in text
    assert "Compared with" not in composed(compared=None)
