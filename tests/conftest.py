"""Fixtures for all tests: a small data set, the real MNIST if it is there, a random generator."""

import os
import signal
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from cnn.config.run import DataConfig
from cnn.data import sources
from cnn.data.dataset import Dataset

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
hypothesis.settings.register_profile("filterscope", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("filterscope")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores SIGINT
MNIST_DIR = os.environ.get("FILTERSCOPE_MNIST_DIR")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The data set `digits`, split with seed 0."""
    config = DataConfig(source="digits")
    downloads = tmp_path_factory.mktemp("downloads")
    return sources.load(sources.identify(config, downloads), config)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the real MNIST files; without one, the tests that need it are skipped."""
    if MNIST_DIR is None:
        pytest.skip("FILTERSCOPE_MNIST_DIR does not name a folder with the MNIST files")
    folder = Path(MNIST_DIR)
    assert folder.is_dir(), f"FILTERSCOPE_MNIST_DIR names {folder}, which is not a folder"
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With two processes, run tests that need a Prefect server in one, and others file by file."""
    for item in items:
        has_server = "prefect_server" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("server" if has_server else str(item.path)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests used the real MNIST files."""
    passed = terminalreporter.stats.get("passed", [])
    n_real = sum("real_mnist" in report.keywords for report in passed)
    terminalreporter.write_line(f"real MNIST: {n_real} tests passed with it")
