"""The gate at the end of a run, which promotes, keeps or rejects; and promotion by hand."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from cnn.errors import GateError
from cnn.promotion import registry
from cnn.runs import folders, index, records
from cnn.runs.records import RunRecord
from cnn.store.store import Store
from tests.flows.conftest import SHORT_WORDS, Command, Finished, run

pytestmark = pytest.mark.slow


def in_force(store: Path, track: str = "digits") -> str:
    current = registry.current(store, track)
    return current.run if current else ""


def flow_run(record: RunRecord) -> FlowRun:
    assert record.flow_run_id
    with get_client(sync_client=True) as client:
        return client.read_flow_run(record.flow_run_id)  # type: ignore[arg-type]


def test_the_first_run_is_promoted_and_the_same_again_is_kept(
    finished: Finished, store: Path
) -> None:
    """Record, report and index name the outcome; the promoted folder has the run's files."""
    first = finished.record
    assert first.gate is not None
    assert (first.gate.outcome, first.gate.track) == ("promoted", "digits")
    assert in_force(store) == first.run
    text = (finished.folder / "report.html").read_text()
    assert "<h2>Promotion</h2>" in text
    assert "answers in a fresh process" in text
    place = store / "promoted" / "digits"
    for name in ("model/model.keras", "report.html", "run.json", "tables/metrics.parquet"):
        assert (place / name).read_bytes() == (finished.folder / name).read_bytes()
    _, again = run(store)
    assert again.gate is not None
    assert (again.gate.outcome, again.gate.incumbent) == ("kept", first.run)
    assert in_force(store) == first.run
    assert [row["gate"] for row in index.rows(store / "runs")] == ["promoted", "kept"]


def test_a_rejected_run_completes_and_changes_nothing(store: Path) -> None:
    """Its record has every check; the promoted model stays."""
    before = in_force(store)
    _, record = run(store, train={"steps": 2})
    assert record.gate is not None
    assert (record.status, record.gate.outcome) == ("completed", "rejected")
    assert in_force(store) == before
    assert {check.name for check in record.gate.checks if not check.passed} >= {"accuracy"}
    assert record.gate.model_in_force != next(
        step.ref.digest for step in record.steps if step.ref and step.ref.kind == "model"
    )
    assert flow_run(record).state_name == "Completed"


def test_a_rejection_fails_the_run_if_the_settings_say_so(command: Command, store: Path) -> None:
    """Exit code 4 and state Failed, but the run's folder is published."""
    with pytest.raises(GateError, match="rejected on track digits: accuracy: "):
        run(store, train={"steps": 2}, gate={"fail": True})
    record = list(records.read_all(store / "runs"))[-1]
    assert record.gate is not None
    assert record.gate.outcome == "rejected"
    assert flow_run(record).state_name == "Failed"
    words = (*SHORT_WORDS[:2], *SHORT_WORDS[4:], "--train.steps", "2", "--gate.fail", "true")
    code, _, errors = command("run", *words)
    assert code == 4
    assert "rejected on track digits" in errors


def test_models_of_another_track_do_not_compete(store: Path) -> None:
    """The first model on a track only needs the minimum; the other track does not change."""
    before = in_force(store)
    limits = {"track": "other", "min_accuracy": 0.0, "min_recall": 0.0}
    _, record = run(store, train={"steps": 2}, gate=limits)
    assert record.gate is not None
    assert record.gate.outcome == "promoted"
    assert (in_force(store, "other"), in_force(store)) == (record.run, before)


def test_a_person_can_promote_any_completed_run_and_go_back(command: Command, store: Path) -> None:
    """The history has the reasons; gc keeps every run that was ever promoted."""
    first = in_force(store)
    _, rejected = run(store, train={"steps": 2})
    code, _, errors = command("promote", rejected.run, "--because", "a trial")
    assert (code, errors) == (0, f"{rejected.run} is promoted on track digits\n")
    assert in_force(store) == rejected.run
    code, _, errors = command("promote", rejected.run, "--because", "again")
    assert code == 2
    assert "is already promoted on track digits" in errors
    assert command("promote", first, "--because", "back")[0] == 0
    history = json.loads((store / "promoted/digits/promoted.json").read_text())
    assert [(line["run"], line["because"]) for line in history][1:] == [
        (rejected.run, "a trial"),
        (first, "back"),
    ]
    assert command("promote", first, "--because", "shown", "--track", "show")[0] == 0
    assert in_force(store, "show") == first
    assert command("gc", "--keep", "0", "--apply")[0] == 0
    assert {record.run for record in records.read_all(store / "runs")} == {first, rejected.run}
    assert command("verify")[0] == 0


def test_what_cannot_be_promoted_is_refused(command: Command, store: Path) -> None:
    """No reason, a bad track, an unknown run, an edited folder, a failed run."""
    name = in_force(store)

    def assert_refused(code: int, message: str, *words: str) -> None:
        found, _, errors = command("promote", *words)
        assert (found, message in errors) == (code, True), errors

    assert_refused(2, "--because", name)
    assert_refused(2, "--because is empty", name, "--because", " ")
    track = ("--because", "x", "--track")
    assert_refused(2, "gate.track: '../up' is refused", name, *track, "../up")
    assert_refused(2, "no run of that name", "no-such-run", "--because", "x")
    metrics = store / "runs" / name / "tables/metrics.parquet"
    whole = metrics.read_bytes()
    metrics.write_bytes(b"edited")
    assert_refused(1, "metrics.parquet is missing or was changed", name, *track, "b")
    metrics.write_bytes(whole)
    failed = records.read(store / "runs" / name).model_copy(
        update={"status": "failed", "run": f"{name}-2"}
    )
    folders.publish(store / "runs", failed, {})
    assert_refused(2, "failed; choose a run that completed", failed.run, "--because", "x")
    assert in_force(store) == name
    assert in_force(store, "b") == ""


def test_a_decision_does_not_hold_after_a_change(finished: Finished, store: Path) -> None:
    """With other limits, or another promoted model, the command has to run again."""
    record = finished.record
    limits = finished.config.gate
    assert registry.decision_holds(store, record, limits)
    stricter = limits.model_copy(update={"min_accuracy": 0.99})
    assert not registry.decision_holds(store, record, stricter)
    assert not registry.decision_holds(store, record.model_copy(update={"gate": None}), limits)
    (store / "promoted/digits").unlink()
    assert not registry.decision_holds(store, record, limits)
    assert record.gate is not None
    rejected = record.gate.model_copy(update={"outcome": "rejected", "model_in_force": ""})
    was_rejected = record.model_copy(update={"gate": rejected})
    assert registry.decision_holds(store, was_rejected, limits)
    failing = limits.model_copy(update={"fail": True})
    config_of_it = {**record.config, "gate": failing.model_dump(mode="json")}
    assert not registry.decision_holds(
        store, was_rejected.model_copy(update={"config": config_of_it}), failing
    )


def test_the_seed_date_is_the_day_of_the_run(store: Path) -> None:
    """In the run's name, its record and the model's key."""
    before = datetime.now(UTC)
    folder, record = run(store, train={"steps": 2, "seed": "date"})
    days = {int(f"{moment:%Y%m%d}") for moment in (before, datetime.now(UTC))}
    assert record.seed in days
    assert record.config["train"]["seed"] == record.seed
    assert folder.name.endswith(f"digits-fast-seed{record.seed}")
    assert flow_run(record).name == f"digits-fast-seed{record.seed}"
    model = next(step.ref for step in record.steps if step.ref and step.ref.kind == "model")
    manifest = Store(store).manifest(model)
    assert manifest.components["settings"]["train.seed"] == record.seed
