"""A real Prefect server for the tests of tasks and flows, and one finished run to look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from cnn.config import run as config
from cnn.config.run import RunConfig
from cnn.runs import records
from cnn.runs.records import RunRecord
from flows.train_and_explain import train_and_explain

SHORT = {"data": {"source": "digits"}, "train": {"steps": 60, "log_every": 20}}


@dataclass(frozen=True)
class Finished:
    """A run that is over: its settings, its store and its folder."""

    config: RunConfig
    store: Path
    folder: Path

    @property
    def record(self) -> RunRecord:
        """What run.json says."""
        return records.read(self.folder)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server with its own database."""
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="session")
def finished(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A short run on digits, from an empty store."""
    store = tmp_path_factory.mktemp("finished") / "artifacts"
    settings = config.validate(SHORT)
    return Finished(settings, store, train_and_explain(settings, store=store))
