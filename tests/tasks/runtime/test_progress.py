"""Progress on the terminal and in the UI."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from cnn.progress import Progress
from tasks.runtime import progress


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """The percentages and descriptions sent to Prefect."""
    messages: list[tuple[float, str]] = []

    def create(percent: float, key: str, description: str) -> UUID:
        assert key == "train-model-progress"
        messages.append((percent, description))
        return uuid4()

    def update(artifact_id: UUID, percent: float, description: str) -> None:
        messages.append((percent, description))

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "update_progress_artifact", update)
    return messages


def test_the_artifact_is_updated_at_most_every_two_seconds(
    sent: list[tuple[float, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and the last report are always sent."""
    clock = iter([10.0, 10.5, 13.0, 13.1])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    artifact = progress.Artifact("train_model")
    for done in (1, 2, 3, 4):
        artifact.report(Progress(done, 4, {"accuracy": 0.5, "images_per_second": 1234.0}))
    assert [percent for percent, _ in sent] == [25, 75, 100]
    assert sent[0][1] == "accuracy 50.00%, 1,234 images/s"
    assert sent[1][1] == "accuracy 50.00%, 1,234 images/s, 1.5 s left"
    assert sent[2][1] == sent[0][1]


def test_a_server_that_does_not_answer_stops_no_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning is logged, and nothing more is sent."""
    calls: list[object] = []

    def fail(*_: Any, **values: Any) -> None:
        calls.append(values)
        raise ConnectionError("no answer")

    monkeypatch.setattr(progress, "create_progress_artifact", fail)
    artifact = progress.Artifact("train_model")
    artifact.report(Progress(1, 1))
    artifact.report(Progress(1, 1))
    assert len(calls) == 1
    assert caplog.text.count("cannot be shown in Prefect: no answer") == 1


def test_without_a_terminal_no_bars_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed."""
    with progress.Bars().line("train_model") as report:
        report(Progress(1, 2))
    assert capsys.readouterr() == ("", "")
