"""Two small files, what is wanted of them, and a server that has them."""

import gzip
import hashlib
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest

from cnn.data import download, idx
from cnn.data.download import Wanted
from tests.hosts import ARRAYS, MOST_BYTES, Server, serving


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The compressed files by name."""
    folder = tmp_path_factory.mktemp("bodies")
    for name, array in ARRAYS.items():
        idx.write(folder / name, array, compress=True)
    return {name: (folder / name).read_bytes() for name in ARRAYS}


@pytest.fixture(scope="module")
def wanted(bodies: dict[str, bytes]) -> dict[str, Wanted]:
    """What is known of the files by name: SHA-256 of the unpacked bytes, and a limit."""
    digests = {
        name: hashlib.sha256(gzip.decompress(body)).hexdigest() for name, body in bodies.items()
    }
    return {
        name: Wanted(partial(download.verify, digest=digest), MOST_BYTES)
        for name, digest in digests.items()
    }


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits between two attempts; what they would have waited is noted."""
    noted: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=noted.append)
    monkeypatch.setattr(download, "time", clock)
    return noted


@pytest.fixture
def server(
    bodies: dict[str, bytes], sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server on this machine, reached without a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(bodies) as server:
        yield server
