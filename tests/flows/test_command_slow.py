"""The command as a process of its own: cached, interrupted, in parallel, on the real MNIST."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnn.config.run import RuntimeConfig
from cnn.data import dataset as datasets
from cnn.data import idx
from cnn.model_io import exports
from cnn.train import device
from tests import commands
from tests.cnn.explain import oracle
from tests.commands import COMMAND, NET, SMALL, Command
from tests.flows.conftest import idx_folder
from tests.services.servers import Server, server_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A machine on which Prefect was never used."""
    return commands.environment(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Prefect server on SQLite."""
    (tmp_path / "server").mkdir()
    with server_with("sqlite", tmp_path / "server") as started:
        yield started


def test_ctrl_c_ends_a_run_soon_and_leaves_no_temporary_files(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The signal goes to the whole process group, as from a terminal; the next run completes."""
    words = ["run", "--data.source", "digits", "--train.log_every", "20", "--train.steps"]
    with subprocess.Popen(
        [COMMAND, *words, "100000"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        lines: Iterator[str] = iter(process.stderr.readline, "")
        assert any("step 40:" in line for line in lines)
        sent = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert time.monotonic() - sent < 30
    assert "Finished in state Crashed" in rest
    assert "Connection refused" not in rest
    assert not list((tmp_path / "artifacts").rglob("*.part"))
    assert not (tmp_path / "artifacts/store/model").exists()
    subprocess.run([COMMAND, *words, "20"], env=environment, check=True)


def n_task_runs(server: Server, record: dict[str, object]) -> int:
    wanted = {"id": {"any_": [record["flow_run_id"]]}}
    return int(server.post("task_runs/count", flow_runs=wanted))


def test_two_parallel_runs_on_one_store_both_complete(tmp_path: Path, server: Server) -> None:
    """One trains, the other waits and reuses its model; no artifact is set aside."""
    store = tmp_path / "artifacts"
    environment = commands.environment(tmp_path, PREFECT_API_URL=f"{server.address}/api")
    words = (COMMAND, *SMALL, "--train.steps", "3000", "--runtime.checkpoint_seconds", "0.05")
    both = [Command(tmp_path / f"log-{i}", words, environment) for i in range(2)]
    codes = [command.end() for command in both]
    output = "".join(command.text for command in both)
    assert codes == [0, 0], output
    assert commands.temporaries(store) == []
    assert not (store / "quarantine").exists()
    assert output.count("is already doing this; waiting") == 1
    first, second = (json.loads(path.read_text()) for path in store.glob("runs/2*/run.json"))
    states = sorted(commands.steps(run)["train_model"]["state"] for run in (first, second))
    assert states == ["cached", "ran"]
    refs = [[step["ref"] for step in run["steps"]] for run in (first, second)]
    assert refs[0] == refs[1]
    assert len(list((store / "store/model").iterdir())) == 1
    assert [n_task_runs(server, run) for run in (first, second)] == [7, 7]
    names = [run["state_name"] for run in server.post("flow_runs/filter")]
    assert names == ["Completed", "Completed"]


def test_the_number_of_task_runs_does_not_depend_on_images_or_steps(
    tmp_path: Path, server: Server
) -> None:
    """It is seven for 60 images and 10 steps, and for 1,000 images and 1,000 steps."""
    environment = commands.environment(tmp_path, PREFECT_API_URL=f"{server.address}/api")
    for n, n_steps in ((60, 10), (1000, 1000)):
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8)
        folder = idx_folder(tmp_path / f"set-{n}", images, np.arange(n) % 10)
        words = ("--data.source", "folder", "--data.path", str(folder))
        steps = ("--train.steps", str(n_steps))
        commands.finish(tmp_path / "log", (COMMAND, "run", *NET, *words, *steps), environment)
        assert n_task_runs(server, commands.latest(tmp_path / "artifacts")) == 7


@pytest.mark.real_mnist
def test_recipe_fast_on_real_mnist(
    mnist_dir: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """From the IDX files to the report: 55,000 training images, test accuracy at least 97.5 %."""
    words = ["run", "--data.source", "folder", "--data.path", str(mnist_dir), "--json"]
    done = subprocess.run(
        [COMMAND, *words], env=environment, check=True, capture_output=True, text=True
    )
    record = json.loads(done.stdout)
    assert record["data"] == "mnist"
    assert record["headline"]["test_accuracy"] >= 0.975
    assert record["headline"]["n_test"] == 10_000
    refs = {step["ref"]["kind"]: step["ref"]["key"] for step in record["steps"]}
    dataset = datasets.read(tmp_path / "artifacts/store/dataset" / refs["dataset"])
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    folder = tmp_path / "artifacts/runs" / record["run"]
    patches = pd.read_parquet(folder / "tables/patches.parquet")
    filters = pd.read_parquet(folder / "tables/filters.parquet")
    alive = filters.loc[~filters["dead"], ["layer", "filter"]]
    found = patches.groupby(["layer", "filter"]).size()
    assert (found == 12).all()
    assert sorted(found.index) == sorted(alive.itertuples(index=False, name=None))


@pytest.mark.real_mnist
def test_patches_on_real_mnist_equal_a_full_sort(
    mnist_dir: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The run's table has the patches that brute force finds with the saved model."""
    words = ["run", "--data.source", "folder", "--data.path", str(mnist_dir)]
    subprocess.run([COMMAND, *words, "--train.steps", "100"], env=environment, check=True)
    (run,) = (tmp_path / "artifacts/runs").glob("2*")
    device.prepare(RuntimeConfig())
    network = exports.load_model(run / "model")
    (path,) = mnist_dir.glob("t10k-images*")
    activations = oracle.activations(network, "conv1", idx.read(path)[..., None])
    table = pd.read_parquet(run / "tables/patches.parquet").query("layer == 'conv1'")
    rows = table.to_dict("records")
    n_certain = oracle.n_agreeing_ranks(rows, activations, 12)
    assert n_certain > 0.9 * len(rows) > 0.9 * 20 * 12, "most filters fire after 100 steps"
