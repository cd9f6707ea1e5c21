"""Measures what is claimed of mining, against peers, in one run.

    FILTERSCOPE_MNIST_DIR=... python -m benchmarks.mining [PART ...] [--rounds 5]

`fast` is trained first; then all mine its filters in MNIST's 10,000 test images, over and over, as
one file of a million, and take turns as in benchmarks/training.py. Who should find what filterscope
finds must do so first. Everything goes to benchmarks/mining.json, and from there into the README.
All parts take some minutes on 2 cores and need 1 GB of disk; PyTorch needs the extra `peers`.
"""

import argparse
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
TEST = 10  # batches
N_BATCHES, N_BATCHES_CONV2, N_MILLION = 400, 40, 1000  # one peer's in one round
EVERY = 0.002  # seconds between two looks at a process's memory

Found = Sequence[Mapping[str, float]]  # of each filter: strength by place


def conv1(folder: str, n_rounds: int) -> Part:
    """Return the images a second of everyone for all filters of conv1, the 12 strongest places."""
    peers = {
        "filterscope": _peer("mining:search", folder),
        "conv1 alone": _peer("mining:layers", folder),
        "conv1 and tf.math.top_k": _peer("mining:top_k", folder),
    }
    if find_spec("torch"):
        peers["conv1 and torch.topk, channels_last"] = _peer("pytorch:top_k", folder)
    with rounds.waiting(peers) as ready:
        found = {name: one.timed(TEST)[1] for name, one in ready.items()}
        for name in set(peers) - {"filterscope", "conv1 alone"}:
            check_same(found["filterscope"], found[name], name)
        rates = images_per_second(ready, dict.fromkeys(ready, N_BATCHES), n_rounds)
    ours = rates["filterscope"]
    lines = [
        comparison("images/s, conv1", name, ours, theirs, "≥ 0.85" if "alone" in name else "> 1")
        for name, theirs in rates.items()
        if name != "filterscope"
    ]
    return {"rates": rates, "unit": "images/s", "comparisons": lines}


def conv2(folder: str, n_rounds: int) -> Part:
    """Return the images a second for all filters of conv2."""
    peers = {
        "filterscope": _peer("mining:search", folder, "layer=conv2"),
        "layers alone": _peer("mining:layers", folder, "layer=conv2"),
    }
    with rounds.waiting(peers) as ready:
        rates = images_per_second(ready, dict.fromkeys(ready, N_BATCHES_CONV2), n_rounds)
    line = comparison("images/s, conv2", "layers up to conv2 alone", *rates.values())
    return {"rates": rates, "unit": "images/s", "comparisons": [line]}


def overhead(folder: str, n_rounds: int) -> Part:
    """Return what is paid beside the convolution: on the host, and once at a search's start."""
    peers = {
        "filterscope, 10,000 images": _peer("mining:search", folder),
        "host": _peer("mining:host", folder),
        "conv1 alone": _peer("mining:layers", folder),
    }
    with rounds.waiting(peers) as ready:
        rates = images_per_second(
            ready, dict(zip(peers, (TEST, N_BATCHES, N_BATCHES), strict=True)), n_rounds
        )
    ours, host, alone = rates.values()
    lines = [
        comparison("time to choose the strongest, conv1", "conv1 alone", alone, host),
        comparison("images/s, conv1, 10,000 images with the start", "conv1 alone", ours, alone),
    ]
    return {"rates": rates, "unit": "images/s", "comparisons": lines}


def notebook(folder: str, n_rounds: int) -> Part:
    """Return the images a second of the notebook's loop, which has 5 of the 25 filters."""
    n_batches = {"filterscope": N_BATCHES, "notebook's loop": TEST, "its loop on lists": TEST}
    ways = (_peer("notebook:search", folder), _peer("notebook:search", folder, "way=list"))
    peers = dict(zip(n_batches, (_peer("mining:search", folder), *ways), strict=True))
    with rounds.waiting(peers) as ready:
        rates = images_per_second(ready, n_batches, n_rounds)
    ours, loop, on_lists = rates.values()
    fivefold = [25 / 5 * rate for rate in ours]
    lines = [
        comparison("images/s, conv1", "notebook's loop, 5 filters", ours, loop, "≥ 80"),
        comparison("filters times images/s, conv1", "notebook's loop", fivefold, loop),
        comparison("images/s, conv1", "notebook's loop on Python's lists", ours, on_lists),
    ]
    return {"rates": rates, "unit": "images/s", "comparisons": lines}


def memory(folder: str, n_rounds: int) -> Part:
    """Return the peak anonymous memory of processes that mine one file of images, in MB."""
    sizes = {"10,000 images": TEST, "1,000,000 images": N_MILLION}
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


PARTS: dict[str, Callable[[str, int], Part]] = {
    part.__name__: part for part in (conv1, conv2, overhead, notebook, memory)
}


def images_per_second(
    ready: Mapping[str, Waiting], n_batches: Mapping[str, int], n_rounds: int
) -> dict[str, list[float]]:
    """Return the images a second of each peer in each round."""
    paces = rounds.paces(ready, n_batches, n_rounds)
    return {name: [BATCH * pace for pace in measured] for name, measured in paces.items()}


def check_same(ours: Found, theirs: Found, name: str) -> None:
    """Raise AssertionError where a peer's strongest places are not ours.

    Strengths may differ by rounding; so a place may be missing that is as strong as the weakest.
    """
    assert len(ours) == len(theirs), f"{name} has {len(theirs)} filters, we have {len(ours)}"
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert len(one) == len(other), f"filter {number}: {name} found {len(other)} places"
        for place in one.keys() | other.keys():
            a, b = (part.get(place, min(part.values())) for part in (one, other))
            assert abs(a - b) < CLOSE, (
                f"filter {number}, place {place}: {name} has {b}, we have {a}"
            )


def peak_anonymous(one: Waiting, n: int) -> int:
    """Return the most anonymous memory that a peer has while it works on n, in bytes.

    Pages of mapped files do not count: the kernel drops them where memory is short.
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
        command = [sys.executable, "-m", "benchmarks.peers.mining", folder]
        subprocess.run(command, env=environ | PASSIVE, check=True)
        yield folder


def _peer(maker: str, folder: str, *options: str) -> tuple[str, ...]:
    return (maker, f"folder={folder}", *options)


def main() -> None:
    """Measure the parts that are named, or all; keep, print and publish what they gave."""
    asked = records.options(argparse.ArgumentParser(description=__doc__.splitlines()[0]), PARTS)
    with material() as folder:
        parts = {name: partial(PARTS[name], folder, asked.rounds) for name in asked.parts}
        record = records.measure(RECORD, parts)
    text = readme.README.read_text(encoding="utf-8")
    readme.README.write_text(readme.mined(text, record), encoding="utf-8")


if __name__ == "__main__":
    main()
