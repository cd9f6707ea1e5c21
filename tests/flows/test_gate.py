"""The gate at the end of a run: promoted, kept, rejected; and what a person promotes."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from cnn.config import run as config
from cnn.errors import GateError
from cnn.promotion import registry
from cnn.runs import folders, index, records
from cnn.runs.records import RunRecord
from cnn.store.store import Store
from flows.train_and_explain import train_and_explain
from tests.flows.conftest import SHORT, Finished
from tests.flows.test_cli import Command, command

__all__ = ["command"]

pytestmark = pytest.mark.slow

WORDS = ("--data.source", "digits", "--train.steps", "60", "--train.log-every", "20")


@pytest.fixture
def store(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store of a finished run, the one that the command finds."""
    root = tmp_path / "artifacts"
    shutil.copytree(finished.store, root, symlinks=True)
    monkeypatch.setenv("FILTERSCOPE_STORE", str(root))
    return root


def run(store: Path, **sections: dict[str, Any]) -> tuple[Path, RunRecord]:
    values = {name: {**SHORT.get(name, {}), **section} for name, section in sections.items()}
    folder = train_and_explain(config.validate({**SHORT, **values}), store=store)
    assert isinstance(folder, Path)
    return folder, records.read(folder)


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
    """The record, the report and the index say so; the promoted folder has the run's files."""
    first = finished.record
    assert first.gate is not None
    assert (first.gate.outcome, first.gate.track, in_force(store)) == (
        "promoted",
        "digits",
        first.run,
    )
    text = (finished.folder / "report.html").read_text()
    assert "Whether it was promoted" in text
    assert "answers in a fresh process" in text
    place = store / "promoted" / "digits"
    for name in ("model/model.keras", "report.html", "run.json", "tables/metrics.parquet"):
        assert (place / name).read_bytes() == (finished.folder / name).read_bytes()
    _, again = run(store)
    assert again.gate is not None
    assert (again.gate.outcome, again.gate.incumbent, in_force(store)) == (
        "kept",
        first.run,
        first.run,
    )
    assert [row["gate"] for row in index.rows(store / "runs")] == ["promoted", "kept"]


def test_a_rejected_run_completes_and_changes_nothing(store: Path) -> None:
    """Its folder is there, with every check."""
    before = in_force(store)
    _, record = run(store, train={"steps": 2})
    assert record.gate is not None
    assert (record.status, record.gate.outcome, in_force(store)) == (
        "completed",
        "rejected",
        before,
    )
    assert {check.name for check in record.gate.checks if not check.passed} >= {"accuracy"}
    assert record.gate.model_in_force != next(
        step.ref.digest for step in record.steps if step.ref and step.ref.kind == "model"
    )
    assert flow_run(record).state_name == "Completed"


def test_a_rejection_fails_the_run_where_the_settings_say_so(
    command: Command, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4 and state Failed, with the run's folder in place."""
    with pytest.raises(GateError, match="rejected on track digits: accuracy: "):
        run(store, train={"steps": 2}, gate={"fail": True})
    record = list(records.read_all(store / "runs"))[-1]
    assert record.gate is not None
    assert record.gate.outcome == "rejected"
    assert flow_run(record).state_name == "Failed"
    code, _, errors = command(
        "run", *WORDS[:2], "--train.steps", "2", *WORDS[4:], "--gate.fail", "true"
    )
    assert code == 4
    assert "rejected on track digits" in errors


def test_models_of_another_track_do_not_compete(store: Path) -> None:
    """The first one there passes the floor only, and the other track stays as it is."""
    before = in_force(store)
    limits = {"track": "other", "min_accuracy": 0.0, "min_recall": 0.0}
    _, record = run(store, train={"steps": 2}, gate=limits)
    assert record.gate is not None
    assert record.gate.outcome == "promoted"
    assert (in_force(store, "other"), in_force(store)) == (record.run, before)


def test_a_person_may_promote_whatever_completed_and_go_back(command: Command, store: Path) -> None:
    """With a reason, which stands in the history; gc keeps all that were in force."""
    first = in_force(store)
    _, rejected = run(store, train={"steps": 2})
    code, _, errors = command("promote", rejected.run, "--because", "a trial")
    assert (code, errors) == (0, f"{rejected.run} is promoted on track digits\n")
    assert in_force(store) == rejected.run
    code, _, errors = command("promote", rejected.run, "--because", "again")
    assert code == 2
    assert "promoted on track digits already" in errors
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
    """No reason, a bad track, a run that failed, a run whose folder was edited."""
    name = in_force(store)
    assert command("promote", name)[0] == 2
    code, _, errors = command("promote", name, "--because", " ")
    assert (code, "--because is empty" in errors) == (2, True)
    code, _, errors = command("promote", name, "--because", "x", "--track", "../up")
    assert (code, "gate.track: '../up' is refused" in errors) == (2, True)
    code, _, errors = command("promote", "no-such-run", "--because", "x")
    assert (code, "no run of that name" in errors) == (2, True)
    metrics = store / "runs" / name / "tables/metrics.parquet"
    whole = metrics.read_bytes()
    metrics.write_bytes(b"edited")
    code, _, errors = command("promote", name, "--because", "x", "--track", "b")
    assert (code, "metrics.parquet is not what the run made" in errors) == (1, True)
    metrics.write_bytes(whole)
    failed = records.read(store / "runs" / name).model_copy(
        update={"status": "failed", "run": f"{name}-2"}
    )
    folders.publish(store / "runs", failed, {})
    code, _, errors = command("promote", f"{name}-2", "--because", "x")
    assert (code, "failed; a completed run is needed" in errors) == (2, True)
    assert in_force(store) == name
    assert in_force(store, "b") == ""


def test_there_is_something_to_do_where_the_gate_may_decide_otherwise(
    finished: Finished, store: Path
) -> None:
    """Other limits, or another model in force by now."""
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
    """In its name, its record and its key."""
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
