"""The whole command, killed while it trains: what the next one does, and what is left."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import get_current_settings

from cnn.runs import records
from tests import commands
from tests.commands import COMMAND, SMALL, Command
from tests.flows.conftest import Finished
from tests.flows.test_train_and_explain import STEPS, _task_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAIN = (*SMALL, "--train.steps", "8000", "--train.log_every", "1000")
OFTEN = ("--runtime.checkpoint_seconds", "0.05")


def checkpoints(store: Path, n_threads: int) -> list[Path]:
    return sorted((store / "checkpoints").glob(f"*/step-*-cpu-{n_threads}.npz"))


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Killed with two numbers of threads in turn; the newest checkpoint is then cut off."""
    store, environment = tmp_path / "artifacts", commands.environment(tmp_path)

    def killed(n_threads: int) -> str:
        words = (COMMAND, *TRAIN, *OFTEN, "--runtime.threads", str(n_threads))
        command = Command(tmp_path / f"killed-{n_threads}", words, environment)
        command.wait_for(lambda: len(checkpoints(store, n_threads)) == 2)
        command.kill()
        commands.wait_for_the_end_of_all(tmp_path, 30)
        return command.text

    killed(1)
    assert "skipped: made on a cpu with 1 threads, this run has a cpu with 2" in killed(2)
    assert len(checkpoints(store, 1)) == len(checkpoints(store, 2)) == 2
    for path in checkpoints(store, 1):
        path.unlink()
    older, newer = checkpoints(store, 2)
    os.truncate(newer, newer.stat().st_size - 1)

    said = commands.finish(tmp_path / "again", (COMMAND, *TRAIN), environment)
    step = int(older.name.split("-")[1])
    assert step > 0
    train = commands.steps(commands.latest(store))["train_model"]
    assert train["state"] == "ran"
    problem = f"no model in the store yet; checkpoint {newer}: not complete or damaged ("
    assert train["why"].startswith(problem)
    assert f"; skipped; went on from step {step:,}, checkpoint of " in train["why"]
    for words in (f"went on from step {step:,}", "not complete or damaged"):
        assert words in " ".join(said.split()), "the log says it too"
    assert commands.temporaries(store) == []
    (manifest,) = (store / "store/model").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["environment"]["device"]["threads"] == 2

    whole = {**environment, "FILTERSCOPE_STORE": str(tmp_path / "whole")}
    commands.finish(tmp_path / "log", (COMMAND, *TRAIN, "--runtime.threads", "2"), whole)
    assert [s["ref"] for s in commands.latest(store)["steps"]] == [
        s["ref"] for s in commands.latest(tmp_path / "whole")["steps"]
    ]
    commands.wait_for_the_end_of_all(tmp_path, commands.SOON)


WORDS = ("run", "--data.source", "digits", "--train.steps", "60", "--train.log_every", "20")
SCRIPT = """
import sys
from flows import cli
try:
    cli.main(sys.argv[1:])
finally:
    heavy = {"prefect", "tensorflow", "keras", "pandas", "matplotlib"}
    print("imported", sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def again(finished: Finished, tmp_path: Path) -> Path:
    """A copy of a store in which everything is done, by one run."""
    store = shutil.copytree(finished.store, tmp_path / "artifacts")
    for path in (store / "runs").glob("2*"):
        if path.name != finished.folder.name:
            shutil.rmtree(path)
    return store


def test_nothing_to_do_costs_nothing(finished: Finished, again: Path, tmp_path: Path) -> None:
    """It says so, names the run, starts no server and imports nothing heavy."""
    before = sorted(again.glob("runs/*"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *WORDS],
        env=commands.environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "nothing to do: every step is in the store, verified" in done.stderr
    assert finished.folder.name in done.stdout
    assert str(again / "runs" / finished.folder.name / "report.html") in done.stdout
    assert done.stdout.count(" cached ") == len(STEPS)
    assert "imported []" in done.stdout
    assert sorted(again.glob("runs/*")) == before
    assert not (tmp_path / "prefect").exists()
    assert not (tmp_path / ".prefect").exists()


def test_without_the_report_a_run_folder_is_made_anew(
    finished: Finished, again: Path, tmp_path: Path
) -> None:
    """What a person would look for is not there: there is something to do."""
    (again / "runs" / finished.folder.name / "report.html").unlink()
    said = commands.finish(tmp_path / "log", (COMMAND, *WORDS), commands.environment(tmp_path))
    assert "nothing to do" not in said
    record = commands.latest(again)
    assert record["run"] != finished.folder.name
    assert {step["state"] for step in record["steps"]} == {"cached"}
    assert (again / "runs" / record["run"] / "report.html").exists()


def test_with_an_api_the_run_is_recorded_there(
    finished: Finished, again: Path, tmp_path: Path
) -> None:
    """Although nothing is to do: as a flow run whose tasks are Cached."""
    url = get_current_settings().api.url
    assert url
    environment = commands.environment(tmp_path, PREFECT_API_URL=url)
    said = commands.finish(tmp_path / "log", (COMMAND, *WORDS), environment)
    assert "nothing to do" not in said
    record = records.find(again / "runs", "latest")[0]
    assert record.run != finished.folder.name
    assert record.flow_run_id
    states = {name: run.state_name for name, run in _task_runs(record.flow_run_id).items()}
    assert states == dict.fromkeys(STEPS, "Cached") | {"publish_run": "Completed"}
    assert not list((tmp_path / "prefect").glob("*.db*"))
