"""The store that the tests of the commands fill."""

from pathlib import Path

import pytest

from cnn.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that does not exist yet."""
    return Store(tmp_path / "artifacts")
