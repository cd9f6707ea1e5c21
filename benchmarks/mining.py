"""Measures what is claimed about mining, against peers, in one run.

    FILTERSCOPE_MNIST_DIR=... python -m benchmarks.mining [PART ...] [--rounds 5]

Trains `fast` first. All peers then mine its filters in one file of a million images, copies of
MNIST's 10,000 test images, and take turns as in benchmarks/training.py. A peer that should find the
same positions as filterscope is checked first. The results go to benchmarks/mining.json, and from
there into the README. All parts take some minutes on 2 cores and 1 GB of disk; PyTorch needs the
extra `peers`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from os import environ
from pathlib import Path

from benchmarks import readme, records, rounds
from benchmarks.records import Part, comparison
from benchmarks.rounds import PASSIVE, Waiting

RECORD = Path(__file__).parent / "mining.json"
CLOSE = 1e-4  # float32 sums of another order differ by less
BATCH = 1000  # images, as filterscope takes them at once
N_TEST, N_CONV2, N_LONG, N_MILLION = 10, 40, 400, 1000  # batches; N_TEST are the test images
DISK = 1_000_000_000  # bytes; a mapped file that finds none ends its writer without a word
EVERY = 0.002  # seconds between two looks at a process's memory

Found = Sequence[Mapping[str, float]]  # of each filter: strength by place


def conv1(folder: str, n_rounds: int) -> Part:
    """Return the images per second of every peer: all filters of conv1, 12 positions each."""
    sorts = {"convolution and tf.math.top_k": _peer("mining:top_k", folder)}
    if find_spec("torch"):
        sorts["convolution and torch.topk, channels_last"] = _peer("pytorch:top_k", folder)
    alone = "convolution alone"
    peers = {
        "filterscope": _peer("mining:search", folder),
        alone: _peer("mining:layers", folder),
        **sorts,
    }
    with rounds.waiting(peers) as ready:
        ours = ready["filterscope"].timed(N_TEST)[1]
        for name in sorts:
            check_same(ours, ready[name].timed(N_TEST)[1], name)
        rates = images_per_second(ready, dict.fromkeys(ready, N_LONG), n_rounds)
    what, own = "images/s, conv1", rates["filterscope"]
    lines = [
        comparison(what, alone, own, rates[alone], "≥ 0.85"),
        *(comparison(what, name, own, rates[name], "> 1") for name in sorts),
    ]
    return {"rates": rates, "unit": "images/s", "comparisons": lines}


def conv2(folder: str, n_rounds: int) -> Part:
    """Return the images per second for all filters of conv2."""
    peers = {
        "filterscope": _peer("mining:search", folder, "layer=conv2"),
        "conv1 and conv2 alone": _peer("mining:layers", folder, "layer=conv2"),
    }
    with rounds.waiting(peers) as ready:
        rates = images_per_second(ready, dict.fromkeys(ready, N_CONV2), n_rounds)
    own, alone = rates.values()
    line = comparison("images/s, conv2", "conv1 and conv2 alone", own, alone)
    return {"rates": rates, "unit": "images/s", "comparisons": [line]}


def overhead(folder: str, n_rounds: int) -> Part:
    """Return the cost besides the convolution: on the host, and once at the start of a search."""
    peers = {
        "filterscope, 10,000 images": _peer("mining:search", folder),
        "host": _peer("mining:host", folder),
        "convolution alone": _peer("mining:layers", folder),
    }
    n_batches = dict(zip(peers, (N_TEST, N_LONG, N_LONG), strict=True))
    with rounds.waiting(peers) as ready:
        rates = images_per_second(ready, n_batches, n_rounds)
    own, host, alone = rates.values()
    lines = [
        comparison("time of choosing the strongest, conv1", "convolution alone", alone, host),
        comparison("images/s, conv1, start and 10,000 images", "convolution alone", own, alone),
    ]
    return {"rates": rates, "unit": "images/s", "comparisons": lines}


def notebook(folder: str, n_rounds: int) -> Part:
    """Return the images per second of the notebook's loop, which searches 5 of the 25 filters."""
    peers = {
        "filterscope": _peer("mining:search", folder),
        "notebook's loop": _peer("notebook:search", folder),
        "its loop on lists": _peer("notebook:search", folder, "way=list"),
    }
    n_batches = dict(zip(peers, (N_LONG, N_TEST, N_TEST), strict=True))
    with rounds.waiting(peers) as ready:
        rates = images_per_second(ready, n_batches, n_rounds)
    own, loop, on_lists = rates.values()
    fivefold = [25 / 5 * rate for rate in own]
    lines = [
        comparison("images/s, conv1", "notebook's loop, 5 filters", own, loop, "≥ 80"),
        comparison("filters times images/s, conv1", "notebook's loop", fivefold, loop),
        comparison("images/s, conv1", "notebook's loop on Python's lists", own, on_lists),
    ]
    return {"rates": rates, "unit": "images/s", "comparisons": lines}


def memory(folder: str, n_rounds: int) -> Part:
    """Return the peak anonymous memory, in MB, of processes that mine one file of images."""
    sizes = {"10,000 images": N_TEST, "1,000,000 images": N_MILLION}
    taken: dict[str, list[float]] = {name: [] for name in sizes}
    for _ in range(n_rounds):
        for name, n in sizes.items():
            with rounds.waiting({name: _peer("mining:search", folder)}) as ready:
                taken[name].append(peak_anonymous(ready[name], n) / 1e6)
    small, large = taken.values()
    line = comparison(
        "peak anonymous memory, 1,000,000 images", "10,000 images", large, small, "≤ 1.1"
    )
    return {"megabytes": taken, "comparisons": [line]}


def shards(folder: str, n_rounds: int) -> Part:
    """Return the images per second of one process, and of a run's tasks with two workers."""
    one, *others = "one process", "two processes", "two Dask workers"
    peers = {one: _peer("mining:search", folder)}
    for name, runner in zip(others, ("processes", "dask"), strict=True):
        peers[name] = _peer("sharded:mapped", folder, f"runner={runner}")
    with rounds.waiting(peers) as ready:
        rates = images_per_second(ready, dict.fromkeys(ready, N_MILLION), n_rounds)
    lines = [
        comparison(f"images/s, conv1, {name}", one, rates[name], rates[one], "≥ 0.87")
        for name in others
    ]
    return {"rates": rates, "unit": "images/s", "comparisons": lines}


PARTS: dict[str, Callable[[str, int], Part]] = {
    part.__name__: part for part in (conv1, conv2, overhead, notebook, memory, shards)
}


def images_per_second(
    ready: Mapping[str, Waiting], n_batches: Mapping[str, int], n_rounds: int
) -> dict[str, list[float]]:
    """Return the images per second of each peer in each round."""
    paces = rounds.paces(ready, n_batches, n_rounds)
    return {name: [BATCH * pace for pace in measured] for name, measured in paces.items()}


def check_same(ours: Found, theirs: Found, name: str) -> None:
    """Raise AssertionError if a peer's strongest positions are not ours.

    Activations may differ by rounding, so a position that ties with the weakest may be missing.
    """
    assert len(ours) == len(theirs), f"{name} has {len(theirs)} filters, we have {len(ours)}"
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert len(one) == len(other), f"filter {number}: {name} found {len(other)} places"
        for place in sorted(one.keys() | other.keys()):
            a, b = (part.get(place, min(part.values())) for part in (one, other))
            assert abs(a - b) < CLOSE, (
                f"filter {number}, place {place}: {name} has {b}, we have {a}"
            )


def peak_anonymous(one: Waiting, n: int) -> int:
    """Return the peak anonymous memory of a peer while it works on n, in bytes.

    Pages of mapped files do not count: the kernel drops them when memory is short.
    """
    seen, done = [rounds.anonymous_memory(one.pid)], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            seen.append(rounds.anonymous_memory(one.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    one.timed(n)
    done.set()
    watcher.join()
    return max(seen)


@contextmanager
def material() -> Iterator[str]:
    """Yield a folder with a trained model and a million images; remove it."""
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < DISK:
            raise SystemExit(f"{folder} has not the {DISK / 1e9:.0f} GB that the images need")
        command = [sys.executable, "-m", "benchmarks.peers.mining", folder]
        subprocess.run(command, env=environ | PASSIVE, check=True)
        yield folder


def _peer(maker: str, folder: str, *options: str) -> tuple[str, ...]:
    return (maker, f"folder={folder}", *options)


def main() -> None:
    """Measure the named parts, or all; print the results, and write them to the README."""
    asked = records.options(argparse.ArgumentParser(description=__doc__.splitlines()[0]), PARTS)
    with material() as folder:
        parts = {name: partial(PARTS[name], folder, asked.rounds) for name in asked.parts}
        record = records.measure(RECORD, parts)
    text = readme.README.read_text(encoding="utf-8")
    readme.README.write_text(readme.mined(text, record), encoding="utf-8")


if __name__ == "__main__":
    main()
