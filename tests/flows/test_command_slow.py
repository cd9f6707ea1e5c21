"""The command as a whole process: cached, interrupted, and on the real MNIST."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from cnn.config.run import RuntimeConfig
from cnn.data import dataset as datasets
from cnn.data import idx
from cnn.model_io import exports
from cnn.train import device
from tests.cnn.explain import oracle
from tests.flows.conftest import Finished

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).with_name("filterscope")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A machine on which Prefect was never used."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "FILTERSCOPE_STORE": str(tmp_path / "artifacts"),
    }


def test_a_cached_run_does_not_import_tensorflow(
    finished: Finished, environment: dict[str, str]
) -> None:
    """The whole command runs, with Prefect's own temporary server, and TensorFlow stays out."""
    words = ["--data.source", "digits", "--train.steps", "60", "--train.log_every", "20"]
    script = (
        "import sys\n"
        "from flows import cli\n"
        "try:\n"
        f"    cli.main(['run', *{words!r}, '--store', {str(finished.store)!r}])\n"
        "finally:\n"
        "    print('imported', {'tensorflow', 'keras'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert "imported set()" in done.stdout
    assert done.stdout.count("cached") == 6
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_run_soon_and_leaves_nothing_half_made(
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


@pytest.mark.real_mnist
def test_recipe_fast_on_real_mnist(
    mnist_dir: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """From the IDX files to the report: 55,000 images train, 97.5 % and more are right."""
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
    """The table of a run has what brute force finds with the weights of the run's saved model."""
    words = ["run", "--data.source", "folder", "--data.path", str(mnist_dir)]
    subprocess.run([COMMAND, *words, "--train.steps", "100"], env=environment, check=True)
    (run,) = (tmp_path / "artifacts/runs").glob("2*")
    device.prepare(RuntimeConfig())
    kernel, bias = exports.load_model(run / "model").get_layer("conv1").get_weights()
    (path,) = mnist_dir.glob("t10k-images*")
    activations = oracle.convolve(idx.read(path)[..., None], kernel, bias, stride=2)
    table = pd.read_parquet(run / "tables/patches.parquet").query("layer == 'conv1'")
    rows = table.assign(image=table["image_id"]).to_dict("records")
    n_sure = sum(
        oracle.n_agreeing_ranks([row for row in rows if row["filter"] == f], activations, f, 12)
        for f in range(25)
    )
    assert n_sure > 0.9 * len(rows) > 0.9 * 20 * 12, "most filters fire after 100 steps"
