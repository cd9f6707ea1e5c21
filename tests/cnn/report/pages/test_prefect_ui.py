"""What Prefect's UI shows of a run."""

from pathlib import Path

import pytest

from cnn.data import sources
from cnn.report.figures import theme
from cnn.report.figures.contact_sheet import Sheet
from cnn.report.pages import page, prefect_ui, thumbnails
from cnn.runs.records import Check, ComparedWith, GateDecision
from cnn.runs.searches import SearchRecord
from cnn.store.refs import Ref
from tests.plain_record import PLAIN
from tests.services import hostile

FOLDER = Path("/store/runs/now")
PAGES = "http://127.0.0.1:4201/"


def judged(outcome: str, incumbent: str = "", *checks: Check) -> GateDecision:
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
def test_the_promoted_model_is_the_one_in_force_afterwards(
    outcome: str, incumbent: str, run: str
) -> None:
    """Its link leads to the run that it comes from; there is none where nothing is promoted."""
    record = PLAIN.model_copy(update={"gate": judged(outcome, incumbent)})
    links = prefect_ui.links(record, FOLDER, PAGES)
    assert f"(<{PAGES}now/report.html>)" in links
    assert links.count("model.keras") == bool(run)
    assert (f"(<{PAGES}{run}/model/model.keras>)" in links) == bool(run)


def test_without_a_page_server_paths_are_shown() -> None:
    """A link to nowhere would be worse."""
    links = prefect_ui.links(PLAIN, FOLDER, "")
    assert "](" not in links
    assert links.replace("\\", "") == "- Report of this run: /store/runs/now/report.html"


def test_the_gates_page_names_the_decision_and_every_check() -> None:
    """Class names stay text in it."""
    found = f"{hostile.CLASSES[0]}: 1 %"
    checks = (
        Check(name="accuracy", passed=True, found="99 %", wanted="90 %"),
        Check(name="class recall", passed=False, found=found, wanted="70 %"),
    )
    shown = prefect_ui.gate_page(judged("rejected", "", *checks))
    assert "Rejected on track main" in shown
    assert "| accuracy | passed | 99 % | 90 % |" in shown
    assert "| class recall | failed | &lt;img" in shown
    assert "<" not in shown


def test_a_decision_without_checks_has_its_row() -> None:
    """As when the very model is promoted already."""
    assert "| none | kept | so |" in prefect_ui.gate_page(judged("kept", "before"))


def test_only_a_substitute_for_mnist_is_called_one() -> None:
    """Anybody's note says nothing of the data."""
    told = PLAIN.model_copy(update={"note": "trained again for the paper"})
    assert page.title(told) == "digits, recipe fast, seed 0"
    substitute = PLAIN.model_copy(update={"note": f"{sources.OUT_OF_REACH}, so digits"})
    assert page.title(substitute) == "digits in place of MNIST, recipe fast, seed 0"


def test_a_note_stays_text_on_the_pictures_page() -> None:
    """No picture, link or element comes from it."""
    shown = prefect_ui.pictures_page(
        PLAIN.model_copy(update={"note": hostile.NOTE}), FOLDER, PAGES, ""
    )
    assert "<img" not in shown
    assert "](javascript" not in shown
    assert shown.count("](") == 1  # the report's


SECTION = {
    "accuracy": "Test accuracy 97.00 % before, 98.00 % now: +1.00 points",
    "predictions": "3 of 100 test images have another prediction",
    "layers": [{"name": "conv1", "words": "24 the same, 1 new"}],
    "left_out": {"conv2": "maps of <other> sizes"},
    "rows": [{}],
}


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """A folder with both pictures of that comparison."""
    for name in ("changed.png", "matches-conv1.png"):
        theme.save(Sheet(name, "", [[None]]).draw(), tmp_path / name)
    return tmp_path


def test_the_comparisons_page_has_counts_and_pictures(figures: Path) -> None:
    """The images that changed first; text from data stays text."""
    shown = prefect_ui.comparison_page(ComparedWith(run="before"), SECTION, figures)
    assert shown.startswith("# Compared with the promoted model of before")
    for words in (
        "98\\.00 %",
        "3 of 100 test images",
        "conv1: 24 the same, 1 new",
        "&lt;other&gt;",
    ):
        assert words in shown.replace("&#58;", ":").replace("\\:", ":")
    assert shown.index("![changed](data:") < shown.index("conv1](data:")
    assert "<" not in shown
    unchanged = prefect_ui.comparison_page(
        ComparedWith(run="before"), {**SECTION, "rows": []}, figures
    )
    assert unchanged.count("](data:") == 1


def test_pictures_that_do_not_fit_are_left_out(
    figures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and those that fit are there."""
    whole = prefect_ui.comparison_page(ComparedWith(run="before"), SECTION, figures)
    monkeypatch.setattr(
        thumbnails, "_ROOM", whole.index("\n", whole.index("![")) - whole.index("![")
    )
    shown = prefect_ui.comparison_page(ComparedWith(run="before"), SECTION, figures)
    assert shown.count("](data:") == 1
    assert "too large for this page" in shown


def test_a_searchs_page_has_every_picture_that_fits(
    figures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says where those are that do not."""
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
    assert shown.count("is too large for this page; it lies in that folder") == 2


def test_the_comparisons_page_says_why_there_is_none() -> None:
    """As text."""
    shown = prefect_ui.comparison_page(
        ComparedWith(run="before", problem="it is <gone>"), None, FOLDER
    )
    assert "It could not be compared" in shown
    assert "it is &lt;gone&gt;" in shown
