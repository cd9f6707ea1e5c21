"""The event of the gate's decision, and the artifact of a comparison."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnn.report.pages import html
from cnn.runs import records
from cnn.store import layout
from cnn.tables import parquet
from tasks.runtime import ui_artifacts
from tests.cnn.report.pages.test_prefect_ui import decision
from tests.plain_record import PLAIN


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events that were emitted."""
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(ui_artifacts, "emit_event", lambda **event: events.append(event))
    monkeypatch.setenv(ui_artifacts.PAGES, "http://127.0.0.1:4201/")
    return events


@pytest.mark.parametrize("outcome", ["promoted", "rejected"])
def test_a_decision_is_emitted_as_plain_json(emitted: list[dict[str, Any]], outcome: str) -> None:
    """The event has the track as its resource, and the report's address."""
    record = PLAIN.model_copy(
        update={"gate": decision(outcome), "headline": {"test_accuracy": 0.9}}
    )
    ui_artifacts.emit_decision(record, Path("/store/runs/now"))
    (event,) = emitted
    assert event["event"] == f"filterscope.{outcome}"
    assert event["resource"]["prefect.resource.id"] == "filterscope.track.main"
    payload = event["payload"]
    assert json.loads(json.dumps(payload, allow_nan=False)) == payload
    assert payload["report"] == "http://127.0.0.1:4201/now/report.html"
    assert (payload["outcome"], payload["because"]) == (outcome, "so")
    assert payload["test_accuracy"] == 0.9


def test_no_event_is_emitted_if_the_promoted_model_is_kept(emitted: list[dict[str, Any]]) -> None:
    """Nothing has changed."""
    record = PLAIN.model_copy(update={"gate": decision("kept", "before")})
    ui_artifacts.emit_decision(record, Path("/x"))
    assert emitted == []


def test_a_comparison_is_shown_only_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its artifact has its own key, and the reason if the comparison failed."""
    (tmp_path / html.PICTURES_NAME).touch()
    parquet.write_rows(tmp_path / layout.INDEX_NAME, "runs", [])
    created: dict[str, Any] = {}
    for name in ("create_markdown_artifact", "create_table_artifact"):
        monkeypatch.setattr(
            ui_artifacts, name, lambda *content, **more: created.update({more["key"]: content})
        )
    ui_artifacts.show_run(PLAIN, tmp_path / "now", tmp_path, None)
    assert "comparison" not in created
    compared = records.ComparedWith(run="before", problem="damaged")
    record = PLAIN.model_copy(update={"compared": compared})
    ui_artifacts.show_run(record, tmp_path / "now", tmp_path, None)
    assert "damaged" in created["comparison"][0]
