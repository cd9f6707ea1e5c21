"""What Prefect's UI shows of a run."""

from pathlib import Path

import pytest

from cnn.report.figures import theme
from cnn.report.figures.contact_sheet import Sheet
from cnn.report.pages import prefect_ui, thumbnails
from cnn.runs.records import Check, ComparedWith, GateDecision
from cnn.runs.searches import SearchRecord
from cnn.store.refs import Ref
from tests.plain_record import PLAIN
from tests.services import hostile

FOLDER = Path("/store/runs/now")
PAGES = "http://127.0.0.1:4201/"


def decision(outcome: str, incumbent: str = "", *checks: Check) -> GateDecision:
    values = {"outcome": outcome, "track": "main", "because": "so", "incumbent": incumbent}
    return GateDecision.model_validate({**values, "checks": checks})


@pytest.mark.parametrize(
    ("outcome", "incumbent", "run"),
    [
        ("promoted", "before", "now"),
        ("kept", "before", "before"),
        ("rejected", "before", "before"),
        ("rejected", "", ""),
    ],
)
def test_links_lead_to_the_promoted_model(outcome: str, incumbent: str, run: str) -> None:
    """The model promoted after the gate's decision, in its own run; none if there is none."""
    record = PLAIN.model_copy(update={"gate": decision(outcome, incumbent)})
    links = prefect_ui.links(record, FOLDER, PAGES)
    assert f"(<{PAGES}now/report.html>)" in links
    assert links.count("model.keras") == bool(run)
    assert (f"(<{PAGES}{run}/model/model.keras>)" in links) == bool(run)


def test_without_a_page_server_paths_are_shown() -> None:
    """Instead of links that lead nowhere."""
    links = prefect_ui.links(PLAIN, FOLDER, "")
    assert "](" not in links
    assert links.replace("\\", "") == "- Report of this run: /store/runs/now/report.html"


def test_the_page_of_the_gate_has_the_decision_and_every_check() -> None:
    """Class names stay text."""
    found = f"{hostile.CLASSES[0]}: 1 %"
    checks = (
        Check(name="accuracy", passed=True, found="99 %", wanted="90 %"),
        Check(name="class recall", passed=False, found=found, wanted="70 %"),
    )
    shown = prefect_ui.gate_page(decision("rejected", "", *checks))
    assert "Rejected on track main" in shown
    assert "| accuracy | passed | 99 % | 90 % |" in shown
    assert "| class recall | failed | &lt;img" in shown
    assert "<" not in shown


def test_a_decision_without_checks_has_a_row() -> None:
    """As when the same model is already promoted."""
    assert "| none | kept | so |" in prefect_ui.gate_page(decision("kept", "before"))


def test_a_note_stays_text_on_the_page_of_figures() -> None:
    """It does not become an image, a link or an element."""
    record = PLAIN.model_copy(update={"note": hostile.NOTE})
    shown = prefect_ui.pictures_page(record, FOLDER, PAGES, "")
    assert "<img" not in shown
    assert "](javascript" not in shown
    assert shown.count("](") == 1  # the report's


SECTION = {
    "accuracy": "Test accuracy 97.00 % before, 98.00 % now: +1.00 points",
    "predictions": "3 of 100 test images have a different prediction",
    "layers": [{"name": "conv1", "words": "24 the same, 1 new"}],
    "left_out": {"conv2": "maps of <other> sizes"},
    "rows": [{}],
}


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """A folder with both figures of that comparison."""
    for name in ("changed.png", "matches-conv1.png"):
        theme.save(Sheet(name, "", [[None]]).draw(), tmp_path / name)
    return tmp_path


def test_the_page_of_a_comparison_has_counts_and_figures(figures: Path) -> None:
    """The images that changed first; text from data stays text."""
    before = ComparedWith(run="before")
    shown = prefect_ui.comparison_page(before, SECTION, figures)
    assert shown.startswith("# Compared with the promoted model of before")
    for words in ("98\\.00 %", "3 of 100 test images", "conv1: 24 the same", "&lt;other&gt;"):
        assert words in shown.replace("\\:", ":")
    assert shown.index("![changed](data:") < shown.index("conv1](data:")
    assert "<" not in shown
    unchanged = prefect_ui.comparison_page(before, {**SECTION, "rows": []}, figures)
    assert unchanged.count("](data:") == 1
    failed = prefect_ui.comparison_page(ComparedWith(problem="it is <gone>"), None, FOLDER)
    assert "It could not be compared" in failed
    assert "it is &lt;gone&gt;" in failed


def test_figures_that_do_not_fit_are_left_out(
    figures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says so, and has those that fit."""
    before = ComparedWith(run="before")
    whole = prefect_ui.comparison_page(before, SECTION, figures)
    start = whole.index("![")
    monkeypatch.setattr(thumbnails, "_ROOM", whole.index("\n", start) - start)
    shown = prefect_ui.comparison_page(before, SECTION, figures)
    assert shown.count("](data:") == 1
    assert "is too large for this page; see the report" in shown


def test_the_page_of_a_search_has_every_figure_that_fits(
    figures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says where to find the others."""
    ref = Ref(kind="patches", key="0" * 64, digest="0" * 64)
    record = SearchRecord(
        run="before",
        layer="conv2",
        data="<digits>",
        created=PLAIN.created,
        config={},
        **dict.fromkeys(("model", "dataset", "patches"), ref),
        n_patches=768,
    )
    shown = prefect_ui.mined_page(record, figures)
    assert shown.startswith("# conv2 of before\n\n768 patches in images of &lt;digits&gt;")
    assert shown.count("](data:") == 2
    monkeypatch.setattr(thumbnails, "_ROOM", 0)
    shown = prefect_ui.mined_page(record, figures)
    assert "](data:" not in shown
    assert shown.count("is too large for this page; see that folder") == 2
