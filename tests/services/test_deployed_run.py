"""A deployment's runs: what is shown of them, and which of several late ones trains."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.services.servers import Run, Server, Worker, wait_until, working

pytestmark = pytest.mark.service

CONFIG: Run = {"data": {"source": "digits"}, "train": {"steps": 40, "log_every": 20}}
N_LATE = 3
on_sqlite = pytest.mark.parametrize("server", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.timeout(400)
def test_after_an_outage_only_the_latest_scheduled_run_trains(
    server: Server, tmp_path: Path
) -> None:
    """The others end as Cancelled and name it; a run that a person started is not cancelled."""
    store = tmp_path / "artifacts"
    first = datetime.now(UTC) + timedelta(seconds=12)
    every = f"DTSTART:{first:%Y%m%dT%H%M%S}\nFREQ=SECONDLY;INTERVAL=4;COUNT={N_LATE}"
    schedule = {"schedule": {"rrule": every, "timezone": "Etc/UTC"}, "active": True}
    deployment = server.deploy("nightly", store, CONFIG, schedules=[schedule])
    by_hand = server.submit(deployment, parameters={"note": "by a person"})
    wait_until(lambda: len(_scheduled(server, deployment)) == N_LATE, "the schedule")
    time.sleep(max(0.0, (first - datetime.now(UTC)).total_seconds()) + 4 * N_LATE)
    with working(server, tmp_path):
        late = _scheduled(server, deployment)
        ended = [server.wait_for(run["id"]) for run in late]
        assert server.wait_for(by_hand)["state"]["name"] == "Completed"
    assert [run["state"]["name"] for run in ended] == ["Cancelled"] * (N_LATE - 1) + ["Completed"]
    for run in ended[:-1]:
        assert run["state"]["message"].startswith("a later scheduled run is due: ")
    assert len(list((store / "runs").glob("2*"))) == 2
    assert server.slots_taken(deployment) == 0


def test_a_deployed_run_shows_its_log_and_few_task_runs(
    server: Server, worker: Worker, tmp_path: Path
) -> None:
    """The run's log has the library's INFO messages, once each."""
    deployment = server.deploy("logged", tmp_path / "artifacts", CONFIG)
    run = server.submit(deployment)
    assert server.wait_for(run)["state"]["name"] == "Completed"
    wait_until(lambda: "Finished in state Completed()" in server.logs(run), "the end of the log")
    lines = server.logs(run)
    for step in (20, 40):
        assert sum(line.startswith(f"step {step}: batch accuracy") for line in lines) == 1
    assert len(lines) < 60
    task_runs = server.post("task_runs/filter", flow_runs={"id": {"any_": [run]}})
    assert 7 <= len(task_runs) <= 50


@on_sqlite
def test_a_store_that_cannot_be_written_ends_a_run_at_once(
    server: Server, worker: Worker, tmp_path: Path
) -> None:
    """The state's message names the path and says what to do."""
    (tmp_path / "file").write_text("no folder")
    run = server.submit(server.deploy("unwritable", tmp_path / "file" / "artifacts", CONFIG))
    ended = server.wait_for(run)
    assert ended["state"]["type"] == "FAILED"
    assert f"store {tmp_path}/file/artifacts: cannot be written" in ended["state"]["message"]
    assert "FILTERSCOPE_STORE" in ended["state"]["message"]


@on_sqlite
def test_a_store_in_the_workers_temporary_folder_is_refused(
    server: Server, worker: Worker, tmp_path: Path
) -> None:
    """Without a working folder in the deployment, a relative store would be lost."""
    (tmp_path / "source").mkdir()
    deployment = server.deploy(
        "lost",
        Path("artifacts"),
        CONFIG,
        working_dir=None,
        pull_steps=None,
        path=str(tmp_path / "source"),
        entrypoint="flows.train_and_explain.train_and_explain",
    )
    ended = server.wait_for(server.submit(deployment))
    assert ended["state"]["type"] == "FAILED"
    assert "store: artifacts lies in /tmp/" in ended["state"]["message"]
    assert "working_dir" in ended["state"]["message"]


def _scheduled(server: Server, deployment: str) -> list[Run]:
    """Return the scheduled runs of a deployment, the earliest first."""
    found: list[Run] = server.post(
        "flow_runs/filter",
        deployments={"id": {"any_": [deployment]}},
        sort="EXPECTED_START_TIME_ASC",
    )
    return [run for run in found if run["auto_scheduled"]]
