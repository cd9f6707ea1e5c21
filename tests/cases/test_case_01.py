"""Case 01: the host refuses, is busy, or hangs."""

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cnn.config.run import DataConfig
from cnn.data import download, published, sources
from cnn.data.download import Deadline
from cnn.errors import UnreachableError
from tests import hosts
from tests.hosts import Server

MNIST = DataConfig(source="mnist")
ORDERS = list(itertools.permutations(("dead", "busy", "hang", "good")))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A host of a small set that stands for MNIST; a hanging answer is given up soon."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "READ_SECONDS", 0.3)
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.01)
    bodies = hosts.written(tmp_path / "host", hosts.small_set())
    hosts.patch_set(monkeypatch, "mnist", sha256=hosts.digests(tmp_path / "host"))
    with hosts.serving(bodies) as server:
        yield server


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_of_hosts_ends_with_the_file(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, order: tuple[str, ...]
) -> None:
    """A refusal costs one request, a busy host at most three; the log names who served."""
    name = published.FILE_NAMES["test-labels"]
    wanted = {name: published._wanted("mnist")[name]}
    with caplog.at_level(logging.INFO, "cnn"):
        download.fetch(wanted, server.at(*order), tmp_path / "data", Deadline.after(60))
    served = next(place for place in order if place in ("busy", "good"))
    assert caplog.messages == [f"fetched {name} from {server.at(served)[0]}"]
    before = order[: order.index(served)]
    assert server.asked == {**dict.fromkeys(before, 1), served: 3 if served == "busy" else 1}
    assert [path.name for path in (tmp_path / "data").iterdir()] == [name]
    assert (tmp_path / "data" / name).read_bytes() == server.bodies[name]


def test_hosts_that_fail_cost_a_set_nothing_but_time(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the four files comes from wherever it can be had."""
    addresses = tuple(server.at("dead", "hang", "busy", "good"))
    hosts.patch_set(monkeypatch, "mnist", addresses=addresses)
    dataset = sources.load(sources.identify(MNIST, tmp_path), MNIST)
    for part in ("images", "labels"):
        found = getattr(dataset.splits["test"], part)
        np.testing.assert_array_equal(found.squeeze(), hosts.small_set()[f"test-{part}"])
    assert {path.name for path in (tmp_path / "mnist").iterdir()} == set(server.bodies)


@pytest.mark.parametrize(
    "places", [("dead", "hang", "silent"), ("overloaded", "gone"), ("hang", "drip", "hang")]
)
def test_with_every_host_dead_or_hanging_the_run_ends_in_time(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, places: tuple[str, ...]
) -> None:
    """The time is shared among the hosts; one message lists what each of them answered."""
    server.piece, server.pause = 1, 0.03
    monkeypatch.setattr(published, "FETCH_SECONDS", 1.2)
    hosts.patch_set(monkeypatch, "mnist", addresses=tuple(server.at(*places)))
    started = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        sources.load(sources.identify(MNIST, tmp_path), MNIST)
    assert time.monotonic() - started < 1.2 + len(places) * download.GRACE_SECONDS
    first, *answers, remedy = str(caught.value).splitlines()
    assert first.endswith(f"could not be fetched from any of {len(places)} addresses:")
    for place, answer in zip(places, answers, strict=True):
        assert f"/{place}/train-images-idx3-ubyte.gz: " in answer
    assert "--data.source folder --data.path FOLDER" in remedy
    assert list((tmp_path / "mnist").iterdir()) == []


def test_the_time_limits_leave_room_for_the_rest_of_the_run() -> None:
    """120 s is the promise; each host may hold up the run for a second beyond its share."""
    most_hosts = max(
        len(addresses) for addresses in (known.addresses for known in published.SETS.values())
    )
    assert published.FETCH_SECONDS + most_hosts * download.GRACE_SECONDS < 120 - 15


@pytest.mark.slow
def test_the_command_refuses_with_one_message(tmp_path: Path, server: Server) -> None:
    """Exit code of bad data, no traceback, no artifact, no run folder, nothing half fetched."""
    store, addresses = tmp_path / "artifacts", server.at("dead", "gone")
    said = hosts.refused_by_the_command(store, published.SETS["mnist"].sha256, addresses)
    for address, status in zip(addresses, ("403 Forbidden", "404 Not Found"), strict=True):
        assert f"{address}train-images-idx3-ubyte.gz: HTTP {status}" in said
    assert list((store / "downloads/mnist").iterdir()) == []
