"""Mining in shards, each a task of a Prefect flow, as a run does with many images."""

import atexit
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from prefect import flow

from benchmarks import peers
from benchmarks.peers.tiled import BATCH, K
from cnn import progress
from cnn.config import run as config
from cnn.config.run import MiningConfig
from cnn.explain import shards
from cnn.explain.shards import Search
from cnn.train import device
from flows import prefect_settings
from tasks.runtime import shards as in_tasks
from tasks.runtime import workers


def mapped(folder: str, runner: str) -> peers.Steps:
    """Return a function that mines conv1 in a flow, one task per shard, with two warm workers."""
    os.environ |= {"PREFECT_HOME": f"{folder}/{runner}", "PREFECT_LOGGING_LEVEL": "ERROR"}
    prefect_settings.apply()
    runtime = config.validate({"runtime": {"task_runner": runner, "workers": 2}}).runtime
    device.prepare(runtime)
    held = ExitStack()
    crew = held.enter_context(workers.engaged(runtime))
    atexit.register(held.close)
    settings = MiningConfig(layer="conv1", patches_per_filter=K)
    search = Search(Path(folder) / "model", "", Path(folder) / "dataset", settings)

    @flow
    def mine(n: int) -> None:
        cut = shards.cut(n * BATCH, BATCH)
        with tempfile.TemporaryDirectory() as kept:
            in_tasks.mapped(search, cut, Path(kept), crew, progress.ignore, print)

    mine(40)  # four shards: both workers are warm
    return mine
