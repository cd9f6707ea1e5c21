"""The files of a comparison, and how the report shows them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn.compare import summary
from cnn.compare.comparison import Comparison, MatchedLayer, Predictions
from cnn.data.dataset import Split
from cnn.report import comparison as report_comparison
from cnn.report.pages import html, page
from cnn.runs.records import ComparedWith
from cnn.store.refs import Kind
from cnn.tables import parquet
from tests.plain_record import PLAIN

SPLIT = Split(
    np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 6, 6, 1), np.uint8),
    np.zeros(4, np.int64),
    np.arange(4),
)
ENVIRONMENT = {"python": "3", "tensorflow": "2", "keras": "3", "numpy": "2", "precision": "f"}


def comparison(layer: MatchedLayer) -> Comparison:
    names = np.array(["a", "b", "c"])
    predictions = Predictions(names[[0, 1, 2, 0]], names[[0, 2, 1, 1]], names[[2, 1, 0, 0]])
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
    return Comparison([layer], {"conv2": "it is <missing>"}, predictions, [], changed)


def composed(compared: ComparedWith | None, folder: Path | None = None) -> str:
    """Return the page of a run, with the comparison in the folder."""
    run = PLAIN.model_copy(update={"environment": ENVIRONMENT, "compared": compared})
    artifacts: dict[Kind, Path] = {"comparison": folder} if folder else {}
    section = page.comparison_section(folder) if folder else None
    return page.compose(run, "", artifacts, section)


def test_the_files_of_a_comparison_hold_its_results(layer: MatchedLayer, tmp_path: Path) -> None:
    """Both tables, the figures, the counts, and the change in accuracy with its interval."""
    report_comparison.write(tmp_path, comparison(layer), SPLIT)
    assert {path.name for path in tmp_path.iterdir()} == {
        "matches.parquet",
        "changed_predictions.parquet",
        "matches-conv1.png",
        "changed.png",
        "comparison.json",
    }
    ids = parquet.read(tmp_path / "changed_predictions.parquet")["image_id"].to_pylist()
    assert ids == [1, 2, 3]
    written: dict[str, Any] = json.loads((tmp_path / "comparison.json").read_text())
    counts = dict.fromkeys(("same", "changed", "dead", "lost", "new"), 1)
    assert written["layers"] == [{"layer": "conv1", **counts, "null_correlation": 0.25}]
    accuracy = written["accuracy"]
    assert (accuracy["before"], accuracy["after"], accuracy["change"]) == (0.25, 0.5, 0.25)
    assert accuracy["ci_low"] < 0.25 < accuracy["ci_high"]
    assert summary.prediction_words(written) == (
        "4 of 4 test images have a different prediction: 2 became right, 1 became wrong, "
        "1 stayed wrong"
    )


def test_the_page_shows_the_comparison(layer: MatchedLayer, tmp_path: Path) -> None:
    """Counts, figures as they were written, changed predictions; text from data is escaped."""
    report_comparison.write(tmp_path, comparison(layer), SPLIT)
    text = composed(ComparedWith(run="earlier-run"), tmp_path)
    for expected in (
        "Compared with the promoted model of earlier-run",
        "1 the same, 1 changed, 1 dead, 1 lost, 1 new; unrelated filters reach",
        html.data_uri((tmp_path / "matches-conv1.png").read_bytes()),
        html.data_uri((tmp_path / "changed.png").read_bytes()),
        "Test accuracy 25.00 % before, 50.00 % now: +25.00 points (95 % interval -",
        "conv2 could not be compared: it is &lt;missing&gt;",
        "tables/matches.parquet",
        "images whose prediction changed, newly wrong ones first",
    ):
        assert expected in text
    assert text.count("<td>&lt;b&gt;</td>") == 3
    assert text.count("right now") == 2


def test_the_page_has_no_figure_of_changed_images_if_there_are_none(
    layer: MatchedLayer, tmp_path: Path
) -> None:
    """It would show nothing."""
    report_comparison.write(tmp_path, replace(comparison(layer), changed=[]), SPLIT)
    text = composed(ComparedWith(run="earlier-run"), tmp_path)
    assert html.data_uri((tmp_path / "changed.png").read_bytes()) not in text


def test_the_page_says_why_there_is_no_comparison() -> None:
    """And says nothing if no model was promoted."""
    text = composed(ComparedWith(run="earlier-run", problem="model.keras is damaged"))
    assert "It could not be compared: model.keras is damaged." in text
    assert "tables/matches.parquet" not in text
    assert "Compared with" not in composed(None)
