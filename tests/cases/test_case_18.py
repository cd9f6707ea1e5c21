"""Case 18: killed runs are completed by a plain re-run; two at once on one SQLite server."""

import gzip
import hashlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cnn.data import published
from tests import commands, hosts
from tests.cases import inputs
from tests.commands import COMMAND, NET, SMALL, Command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# The command, with MNIST replaced by a small set on a slow host of this machine.
SLOW_HOST = """
import json, sys
from cnn.data import published
digests, addresses = json.loads(sys.argv[1])
published.SETS["mnist"] = published.PublishedSet("MNIST", addresses, sha256=digests)
from flows import cli
cli.main(sys.argv[2:])
"""
TRAIN = ("--train.steps", "3000", "--runtime.checkpoint_seconds", "0.05")


def newest_state(store: Path) -> dict[str, dict[str, Any]]:
    return commands.steps(commands.latest(store))


def completed(store: Path) -> None:
    """Assert that the newest run is whole and nothing of the killed one is left."""
    record = commands.latest(store)
    assert record["status"] == "completed"
    assert len(record["steps"]) == 6
    assert all(step["ref"] for step in record["steps"])
    assert commands.temporaries(store) == []
    for kind in ("dataset", "model", "evaluation", "filters", "patches", "report"):
        assert len(list((store / "store" / kind).iterdir())) == 1


def a_part_of(store: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(store.glob(pattern))


MOMENTS = {
    "training": "checkpoints/*/step-*.npz",
    "saving a checkpoint": "checkpoints/*/.step-*.part",
    "saving the model": "store/.model-*.part/model.keras",
    "saving tables": "store/.evaluation-*.part/*",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_it_computes_or_saves_a_plain_rerun_completes(
    tmp_path: Path, moment: str
) -> None:
    """Whatever was half-written is swept away, and the lease of the dead process is no obstacle."""
    store, environment = tmp_path / "artifacts", commands.environment(tmp_path)
    words = (COMMAND, *SMALL, *TRAIN)
    command = Command(tmp_path / "killed", words, environment)
    command.wait_for(a_part_of(store, MOMENTS[moment]))
    command.kill()
    assert not list(store.glob("runs/2*"))
    started = time.monotonic()
    commands.finish(tmp_path / "again", words, environment)
    assert time.monotonic() - started < commands.LONGEST
    completed(store)
    if moment == "training":
        assert "went on from step " in newest_state(store)["train_model"]["why"]


def test_killed_while_it_downloads_a_plain_rerun_completes(tmp_path: Path) -> None:
    """From a host that sends slowly; what was fetched is verified, what was not is fetched."""
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
    completed(store)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A Prefect server on SQLite; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = commands.environment(
        tmp_path / "server", PREFECT_SERVER_ANALYTICS_ENABLED="false"
    )
    (tmp_path / "server").mkdir()
    words = (str(Path(COMMAND).with_name("prefect")), "server", "start", "--port", str(port))
    command = Command(tmp_path / "server" / "log", words, environment)

    def healthy() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    try:
        command.wait_for(healthy)
        yield url
    finally:
        command.process.terminate()
        command.end()


def flow_runs(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{url}/flow_runs/filter", json={}).json()
    return found


def n_task_runs(url: str, flow_run: str) -> int:
    wanted = {"flow_runs": {"id": {"any_": [flow_run]}}}
    return int(httpx.post(f"{url}/task_runs/count", json=wanted).json())


def test_two_runs_at_once_on_one_sqlite_server_and_one_store_complete(
    tmp_path: Path, server: str
) -> None:
    """One trains, the other waits and takes what it made; one artifact, nothing set aside."""
    store = tmp_path / "artifacts"
    environment = commands.environment(tmp_path, PREFECT_API_URL=server)
    words = (COMMAND, *SMALL, *TRAIN)
    both = [Command(tmp_path / f"log-{i}", words, environment) for i in range(2)]
    assert [command.end() for command in both] == [0, 0], both[0].text + both[1].text
    completed(store)
    assert not (store / "quarantine").exists()
    records = [json.loads(path.read_text()) for path in store.glob("runs/2*/run.json")]
    assert len(records) == 2
    states = sorted(commands.steps(record)["train_model"]["state"] for record in records)
    assert states == ["cached", "ran"]
    assert "".join(command.text for command in both).count("does this already; waiting") == 1
    assert [s["ref"] for s in records[0]["steps"]] == [s["ref"] for s in records[1]["steps"]]
    runs = flow_runs(server)
    assert [run["state_name"] for run in runs] == ["Completed"] * 2
    assert [n_task_runs(server, run["id"]) for run in runs] == [7, 7]


def test_task_runs_do_not_grow_with_images_or_steps(tmp_path: Path, server: str) -> None:
    """Seven for sixty images and ten steps, seven for a thousand images and a thousand steps."""
    environment = commands.environment(tmp_path, PREFECT_API_URL=server)
    for n, n_steps in ((60, 10), (1000, 1000)):
        folder = inputs.write_set(tmp_path / f"set-{n}", inputs.good_set(n, n))
        words = (
            "--data.source",
            "folder",
            "--data.path",
            str(folder),
            "--train.steps",
            str(n_steps),
        )
        commands.finish(tmp_path / "log", (COMMAND, "run", *NET, *words), environment)
        record = commands.latest(tmp_path / "artifacts")
        assert n_task_runs(server, record["flow_run_id"]) == 7
    assert [run["state_name"] for run in flow_runs(server)] == ["Completed"] * 2
