"""A search in parts: contiguous blocks of whole images, each searched by itself.

Any process that reaches the artifacts can search a part. The parts' results merge to the same
bytes however the images are cut, see mining.merge.
"""

import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from cnn import progress
from cnn.config.run import MiningConfig
from cnn.data import dataset as datasets
from cnn.explain import activations, mining, patches
from cnn.explain.mining import TopK
from cnn.model_io import exports

_MOST = 16  # shards of one search: a task run each
_FEWEST_BATCHES = 10  # of a shard; less work than that is not worth a task run


@dataclass(frozen=True)
class Search:
    """What is searched, by the folders of the artifacts.

    digest: of the model. Another may take its folder while a worker lives.
    """

    model: Path
    digest: str
    dataset: Path
    settings: MiningConfig


@dataclass(frozen=True)
class Shard:
    """The images [start, stop) of a search; the start is a multiple of the batch size."""

    start: int
    stop: int

    def __str__(self) -> str:
        """Return the numbers of its first and its last image."""
        return f"{self.start}-{self.stop - 1}"


def cut(n_images: int, n_at_once: int) -> list[Shard]:
    """Return the shards of a search: no more than 16, whole batches, about alike.

    n_at_once: images of a batch, see activations.batch_size.
    """
    n_batches = max(1, -(-n_images // n_at_once))
    n_shards = min(_MOST, max(1, n_batches // _FEWEST_BATCHES))
    ends = [n_batches * i // n_shards * n_at_once for i in range(n_shards + 1)]
    return [Shard(start, min(stop, n_images)) for start, stop in itertools.pairwise(ends)]


def work(search: Search, shard: Shard, report: progress.Report = progress.ignore) -> TopK:
    """Return the strongest positions in a shard; for any process, the model stays for the next.

    report: is told how many of the shard's images are done.
    """
    forward, images = _opened(search)
    n = shard.stop - shard.start
    return patches.search(
        forward,
        images[: shard.stop],
        search.settings,
        shard.start,
        lambda done: report(progress.Progress(done - shard.start, n)),
    )


def merged(found: Iterable[TopK], k: int) -> TopK:
    """Return the k strongest positions of all shards; their order does not matter."""
    return reduce(lambda one, other: mining.merge(one, other, k), found)


def name(layer: str, shard: Shard) -> str:
    """Return the name under which a shard's result is kept."""
    return f"shard-{layer}-{shard.start:012d}-{shard.stop:012d}.npz"


_lock = threading.Lock()  # TensorFlow and Keras are imported in one thread, and models loaded
_last: dict[tuple[str, str, bool], activations.Forward] = {}


def _opened(search: Search) -> tuple[activations.Forward, Any]:
    """Return a search's compiled model and its images, memory-mapped; the last one is kept."""
    settings = search.settings
    wanted = search.digest, settings.layer, settings.lowest
    with _lock:
        if wanted not in _last:
            _last.clear()
            model = exports.load_model(search.model)
            _last[wanted] = activations.Forward(model, settings.layer, negated=settings.lowest)
        return _last[wanted], datasets.read(search.dataset).splits[settings.split].images
