"""The whole command after an earlier one: killed runs are completed, finished ones reused."""

import gzip
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from prefect.settings import get_current_settings

from cnn.data import published
from cnn.runs import records
from tests import commands, hosts
from tests.commands import COMMAND, NET, SMALL, Command
from tests.flows.conftest import SHORT_WORDS, STEPS, Finished, task_states

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAIN = (*SMALL, "--train.steps", "8000", "--train.log_every", "1000")
OFTEN = ("--runtime.checkpoint_seconds", "0.05")
MOMENTS = {
    "saving a checkpoint": "checkpoints/*/.step-*.part",
    "saving the model": "store/.model-*.part/model.keras",
    "saving tables": "store/.evaluation-*.part/*",
}
# The command, with MNIST replaced by a small set on a slow local host.
SLOW_HOST = """
import json, sys
from cnn.data import published
digests, addresses = json.loads(sys.argv[1])
published.SETS["mnist"] = published.PublishedSet(addresses, sha256=digests)
from flows import cli
cli.main(sys.argv[2:])
"""


def checkpoints(store: Path, n_threads: int) -> list[Path]:
    return sorted((store / "checkpoints").glob(f"*/step-*-cpu-{n_threads}.npz"))


def assert_complete(store: Path) -> None:
    """The newest run is complete, and nothing of the killed one is left."""
    record = commands.latest(store)
    assert record["status"] == "completed"
    assert [step["step"] for step in record["steps"] if step["ref"]] == STEPS
    assert commands.temporaries(store) == []
    for kind in ("dataset", "model", "evaluation", "filters", "patches", "report"):
        assert len(list((store / "store" / kind).iterdir())) == 1


def test_a_killed_training_resumes_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """It is killed with 1 thread, then with 2; then the newest checkpoint is truncated."""
    store, environment = tmp_path / "artifacts", commands.environment(tmp_path)

    def killed(n_threads: int) -> str:
        words = (COMMAND, *TRAIN, *OFTEN, "--runtime.threads", str(n_threads))
        command = Command(tmp_path / f"killed-{n_threads}", words, environment)
        command.wait_for(lambda: len(checkpoints(store, n_threads)) == 2)
        command.kill()
        commands.wait_for_the_end_of_all(tmp_path, 30)
        return command.text

    killed(1)
    assert "skipped: written on a cpu with 1 threads, but this run uses a cpu with 2" in killed(2)
    assert len(checkpoints(store, 1)) == len(checkpoints(store, 2)) == 2
    for path in checkpoints(store, 1):
        path.unlink()
    older, newer = checkpoints(store, 2)
    os.truncate(newer, newer.stat().st_size - 1)

    output = commands.finish(tmp_path / "again", (COMMAND, *TRAIN), environment)
    step = int(older.name.split("-")[1])
    assert step > 0
    train = commands.steps(commands.latest(store))["train_model"]
    assert train["state"] == "ran"
    problem = f"no model in the store yet; checkpoint {newer}: incomplete or damaged ("
    assert train["why"].startswith(problem)
    assert f"; skipped; resumed from step {step:,}, checkpoint of " in train["why"]
    for words in (f"resumed from step {step:,}", "incomplete or damaged"):
        assert words in " ".join(output.split()), "the log says it too"
    assert_complete(store)
    (manifest,) = (store / "store/model").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["environment"]["device"]["threads"] == 2

    whole = {**environment, "FILTERSCOPE_STORE": str(tmp_path / "whole")}
    commands.finish(tmp_path / "log", (COMMAND, *TRAIN, "--runtime.threads", "2"), whole)
    assert [s["ref"] for s in commands.latest(store)["steps"]] == [
        s["ref"] for s in commands.latest(tmp_path / "whole")["steps"]
    ]
    commands.wait_for_the_end_of_all(tmp_path, commands.SOON)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_while_it_saves_is_completed_by_the_next(tmp_path: Path, moment: str) -> None:
    """Half-written files are removed, and the lease of the dead process does not block."""
    store, environment = tmp_path / "artifacts", commands.environment(tmp_path)
    words = (COMMAND, *SMALL, "--train.steps", "3000", *OFTEN)
    command = Command(tmp_path / "killed", words, environment)
    command.wait_for(lambda: any(store.glob(MOMENTS[moment])))
    command.kill()
    assert not list(store.glob("runs/2*"))
    commands.finish(tmp_path / "again", words, environment)
    assert_complete(store)


def test_a_run_killed_while_it_downloads_is_completed_by_the_next(tmp_path: Path) -> None:
    """Finished files are verified, the others are fetched again."""
    bodies = hosts.written(tmp_path / "host", hosts.small_set())
    digests = {
        role: hashlib.sha256(gzip.decompress(bodies[name])).hexdigest()
        for role, name in published.FILE_NAMES.items()
    }
    store, environment = tmp_path / "artifacts", commands.environment(tmp_path)
    with hosts.serving(bodies) as host:
        host.piece, host.pause = 512, 0.02
        words = (
            *(sys.executable, "-c", SLOW_HOST, json.dumps([digests, host.at("drip")])),
            *("run", "--data.source", "mnist", *NET, "--train.steps", "20"),
        )
        command = Command(tmp_path / "killed", words, environment)
        command.wait_for(
            lambda: any(p.stat().st_size > 2000 for p in store.glob("downloads/mnist/.*.part"))
        )
        command.kill()
        commands.finish(tmp_path / "again", words, environment)
    assert_complete(store)


@pytest.fixture
def again(finished: Finished, store: Path) -> Path:
    """A copy of a store in which one run has completed every step."""
    for path in (store / "runs").glob("2*"):
        if path.name != finished.folder.name:
            shutil.rmtree(path)
    return store


def test_nothing_to_do_costs_nothing(finished: Finished, again: Path, tmp_path: Path) -> None:
    """The command names the earlier run, starts no server and imports no slow module."""
    before = sorted(again.glob("runs/*"))
    done = commands.run_python(
        commands.IMPORTS,
        *("run", *SHORT_WORDS),
        environment=commands.environment(tmp_path),
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


def test_without_the_report_a_new_run_folder_is_written(
    finished: Finished, again: Path, tmp_path: Path
) -> None:
    """If a person has deleted the report of the earlier run, there is something to do."""
    (again / "runs" / finished.folder.name / "report.html").unlink()
    words = (COMMAND, "run", *SHORT_WORDS)
    output = commands.finish(tmp_path / "log", words, commands.environment(tmp_path))
    assert "nothing to do" not in output
    record = commands.latest(again)
    assert record["run"] != finished.folder.name
    assert {step["state"] for step in record["steps"]} == {"cached"}
    assert (again / "runs" / record["run"] / "report.html").exists()


def test_with_an_api_a_cached_run_is_recorded_there(
    finished: Finished, again: Path, tmp_path: Path
) -> None:
    """The flow run's tasks are Cached."""
    url = get_current_settings().api.url
    assert url
    environment = commands.environment(tmp_path, PREFECT_API_URL=url)
    output = commands.finish(tmp_path / "log", (COMMAND, "run", *SHORT_WORDS), environment)
    assert "nothing to do" not in output
    record = records.find(again / "runs", "latest")[0]
    assert record.run != finished.folder.name
    assert record.flow_run_id
    states = task_states(record.flow_run_id)
    assert states == dict.fromkeys(STEPS, "Cached") | {"publish_run": "Completed"}
    assert not list((tmp_path / "prefect").glob("*.db*"))
