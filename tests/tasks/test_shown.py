"""What is told of the gate's decision."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import shown
from tests.cnn.report.test_ui import RECORD, judged


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events that were emitted."""
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(shown, "emit_event", lambda **event: events.append(event))
    monkeypatch.setenv(shown.PAGES, "http://127.0.0.1:4201/")
    return events


@pytest.mark.parametrize("outcome", ["promoted", "rejected"])
def test_a_decision_is_told_in_plain_values(told: list[dict[str, Any]], outcome: str) -> None:
    """As JSON, with the track as its resource and the report's address."""
    record = RECORD.model_copy(update={"gate": judged(outcome), "headline": {"test_accuracy": 0.9}})
    shown.tell(record, Path("/store/runs/now"))
    (event,) = told
    assert event["event"] == f"filterscope.{outcome}"
    assert event["resource"]["prefect.resource.id"] == "filterscope.track.main"
    payload = event["payload"]
    assert json.loads(json.dumps(payload, allow_nan=False)) == payload
    assert payload["report"] == "http://127.0.0.1:4201/now/report.html"
    assert (payload["outcome"], payload["because"]) == (outcome, "so")
    assert payload["test_accuracy"] == 0.9


def test_nothing_is_told_of_a_model_that_is_promoted_already(told: list[dict[str, Any]]) -> None:
    """Nothing happened."""
    shown.tell(RECORD.model_copy(update={"gate": judged("kept", "before")}), Path("/x"))
    assert told == []
