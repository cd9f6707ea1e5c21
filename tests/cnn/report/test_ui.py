"""What Prefect's UI shows of a run."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cnn.data import sources
from cnn.evaluate.gate import Check, Verdict
from cnn.report import page, ui
from cnn.store.runs import RunRecord
from tests.services import hostile

RECORD = RunRecord(
    run="now",
    created=datetime(2026, 11, 1, tzinfo=UTC),
    status="completed",
    data="digits",
    recipe="fast",
    seed=0,
    config={},
    training={},
    steps=(),
    seconds=1,
)
FOLDER = Path("/store/runs/now")
PAGES = "http://127.0.0.1:4201/"


def judged(outcome: str, incumbent: str = "", *checks: Check) -> Verdict:
    values = {"outcome": outcome, "track": "main", "because": "so", "incumbent": incumbent}
    return Verdict.model_validate({**values, "checks": checks})


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
    record = RECORD.model_copy(update={"gate": judged(outcome, incumbent)})
    links = ui.links(record, FOLDER, PAGES)
    assert f"(<{PAGES}now/report.html>)" in links
    assert links.count("model.keras") == bool(run)
    assert (f"(<{PAGES}{run}/model/model.keras>)" in links) == bool(run)


def test_without_a_page_server_paths_are_shown() -> None:
    """A link to nowhere would be worse."""
    links = ui.links(RECORD, FOLDER, "")
    assert "](" not in links
    assert links.replace("\\", "") == "- Report of this run: /store/runs/now/report.html"


def test_the_gates_page_names_the_decision_and_every_check() -> None:
    """Class names stay text in it."""
    found = f"{hostile.CLASSES[0]}: 1 %"
    checks = (
        Check(name="accuracy", passed=True, found="99 %", wanted="90 %"),
        Check(name="class recall", passed=False, found=found, wanted="70 %"),
    )
    shown = ui.gate_page(judged("rejected", "", *checks))
    assert "Rejected on track main" in shown
    assert "| accuracy | passed | 99 % | 90 % |" in shown
    assert "| class recall | failed | &lt;img" in shown
    assert "<" not in shown


def test_a_decision_without_checks_has_its_row() -> None:
    """As when the very model is promoted already."""
    assert "| none | kept | so |" in ui.gate_page(judged("kept", "before"))


def test_only_a_substitute_for_mnist_is_called_one() -> None:
    """Anybody's note says nothing of the data."""
    told = RECORD.model_copy(update={"note": "trained again for the paper"})
    assert page.title(told) == "digits, recipe fast, seed 0"
    substitute = RECORD.model_copy(update={"note": f"{sources.OUT_OF_REACH}, so digits"})
    assert page.title(substitute) == "digits in place of MNIST, recipe fast, seed 0"


def test_a_note_stays_text_on_the_pictures_page() -> None:
    """No picture, link or element comes from it."""
    shown = ui.pictures_page(RECORD.model_copy(update={"note": hostile.NOTE}), FOLDER, PAGES, "")
    assert "<img" not in shown
    assert "](javascript" not in shown
    assert shown.count("](") == 1  # the report's
