"""What several of the public cases need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hosts
from tests.hosts import Server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A host of a small set that stands for MNIST."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bodies = hosts.written(tmp_path / "host", hosts.small_set())
    hosts.patch_set(monkeypatch, "mnist", sha256=hosts.digests(tmp_path / "host"))
    with hosts.serving(bodies) as server:
        hosts.patch_set(monkeypatch, "mnist", addresses=tuple(server.at("good")))
        yield server
