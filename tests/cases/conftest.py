"""What several of the public cases need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.data import published
from tests import hosts
from tests.hosts import Server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A host of a small set that stands for MNIST."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bodies = hosts.written(tmp_path / "host", hosts.small_set())
    monkeypatch.setitem(published.KNOWN, "mnist", hosts.digests(tmp_path / "host"))
    with hosts.serving(bodies) as server:
        monkeypatch.setitem(published.ADDRESSES, "mnist", tuple(server.at("good")))
        yield server
