"""Searches of many images by the command give the same bytes with any workers and after a kill.

160,000 images in 16 shards by default; FILTERSCOPE_IMAGES sets another number of images.
"""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.data import idx
from cnn.data.dataset import Dataset
from tests import commands
from tests.commands import COMMAND, SMALL, Command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

N_IMAGES = int(os.environ.get("FILTERSCOPE_IMAGES", "160000"))
N_SHARDS = 16
SEARCH = ("mine", "--layer", "conv2", "--runtime.threads", "1")
PROCESSES = ("--runtime.task_runner", "processes", "--runtime.workers", "2")
DASK = ("--runtime.task_runner", "dask", "--runtime.workers", "2")


@pytest.fixture(scope="module")
def own(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of IDX files with many test images, drawn from those of digits."""
    folder = tmp_path_factory.mktemp("own")
    test = digits.splits["test"]
    index = np.random.default_rng(0).integers(len(test), size=N_IMAGES)
    for part, chosen in (("train", index[:200]), ("t10k", index)):
        images, labels = test.images[chosen][..., 0], test.labels[chosen]
        idx.write(folder / f"{part}-images-idx3-ubyte", images)
        idx.write(folder / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def base(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run and with the many images as a data set."""
    home = tmp_path_factory.mktemp("base")
    environment = commands.environment(home)
    commands.finish(home / "run", (COMMAND, *SMALL, "--train.steps", "100"), environment)
    few = ("mine", "--layer", "conv1", "--filters", "0", "--data.path", str(own))
    commands.finish(home / "mine", (COMMAND, *few), environment)
    return home / "artifacts"


@pytest.fixture
def home(base: Path, tmp_path: Path) -> Path:
    """A folder with that store, whose files are hard links."""
    shutil.copytree(base, tmp_path / "artifacts", copy_function=os.link)
    return tmp_path


@pytest.fixture(scope="module")
def whole(base: Path, own: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of an uninterrupted search in the run's own process."""
    home = tmp_path_factory.mktemp("whole")
    shutil.copytree(base, home / "artifacts", copy_function=os.link)
    words = (COMMAND, *SEARCH, "--data.path", str(own))
    commands.finish(home / "log", words, commands.environment(home))
    return found(home)


def found(home: Path) -> dict[str, Any]:
    """Return the ref of the patches that a search in conv2 published."""
    (path,) = (home / "artifacts/mined").glob("*-conv2-*/mined.json")
    ref: dict[str, Any] = json.loads(path.read_text())["patches"]
    return ref


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "artifacts/checkpoints").glob("*/shard-*.npz"))


def n_searched(log: str) -> int:
    return log.count("- Finished in state Completed()") - log.count("publish_mined' - Finished")


@pytest.mark.parametrize("runner", [PROCESSES, DASK], ids=["processes", "dask"])
def test_other_workers_find_the_same_bytes(
    runner: tuple[str, ...], home: Path, own: Path, whole: dict[str, Any]
) -> None:
    """Two processes, or a Dask cluster of two workers on this machine."""
    words = (COMMAND, *SEARCH, *runner, "--data.path", str(own))
    log = commands.finish(home / "log", words, commands.environment(home))
    assert n_searched(log) == N_SHARDS
    assert found(home) == whole
    assert commands.temporaries(home / "artifacts") == []
    commands.wait_for_the_end_of_all(home, commands.SOON)


@pytest.mark.parametrize("runner", [(), PROCESSES], ids=["none", "processes"])
def test_a_killed_search_resumes(
    runner: tuple[str, ...], home: Path, own: Path, whole: dict[str, Any]
) -> None:
    """It is killed after half of the shards; a finished shard is repeated only if it is damaged."""
    words = (COMMAND, *SEARCH, *runner, "--data.path", str(own))
    environment = commands.environment(home)
    command = Command(home / "killed", words, environment)
    command.wait_for(lambda: len(kept(home)) >= N_SHARDS // 2)
    command.kill()
    commands.wait_for_the_end_of_all(home, 60)
    names = kept(home)
    assert N_SHARDS // 2 <= len(names) < N_SHARDS
    damaged = next((home / "artifacts/checkpoints").glob(f"*/{names[0]}"))
    os.truncate(damaged, damaged.stat().st_size - 9)

    log = commands.finish(home / "again", words, environment)
    assert f"conv2: {len(names) - 1} of {N_SHARDS} shards were searched before" in log
    assert n_searched(log) == N_SHARDS - len(names) + 1
    assert found(home) == whole
    assert commands.temporaries(home / "artifacts") == []


def _workers(home: Path) -> list[int]:
    """Return the ids of the worker processes of a command that uses the home."""
    found = commands.processes_with(str(home))
    return [pid for pid, line in found.items() if "spawn_main" in line]


def test_a_killed_worker_costs_only_its_shard(home: Path, own: Path, whole: dict[str, Any]) -> None:
    """One of two busy workers is killed: one shard is started a second time."""
    words = (COMMAND, *SEARCH, *PROCESSES, "--data.path", str(own))
    command = Command(home / "log", words, commands.environment(home))
    command.wait_for(lambda: len(kept(home)) >= 3)
    os.kill(_workers(home)[0], signal.SIGKILL)
    assert command.end() == 0, command.text
    assert command.text.count("a worker process died") >= 1
    assert command.text.count("Task run failed with exception") == 1
    assert n_searched(command.text) == N_SHARDS
    assert found(home) == whole
    commands.wait_for_the_end_of_all(home, commands.SOON)


def test_ctrl_c_ends_a_search_and_its_workers(home: Path, own: Path, whole: dict[str, Any]) -> None:
    """The signal goes to all processes, as from a terminal; the next search resumes."""
    words = (COMMAND, *SEARCH, *PROCESSES, "--data.path", str(own))
    environment = commands.environment(home)
    command = Command(home / "ended", ("setsid", *words), environment)  # a group of its own
    command.wait_for(lambda: len(kept(home)) >= 2)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.end() == 130, command.text
    commands.wait_for_the_end_of_all(home, 30)
    assert 2 <= len(kept(home)) < N_SHARDS
    commands.finish(home / "again", words, environment)
    assert found(home) == whole
