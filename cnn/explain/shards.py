"""Shards of a search: contiguous blocks of whole images, each searched on its own.

Any process that can read the artifacts can search a shard. The results merge to the same bytes
however the images are split, see mining.merge.
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

_MOST = 16  # shards per search, each a task run
_FEWEST_BATCHES = 10  # per shard; less work is not worth a task run


@dataclass(frozen=True)
class Search:
    """What to search: the folders of the model and the data set, and the settings.

    digest: of the model, because a worker may outlive the model in that folder.
    """

    model: Path
    digest: str
    dataset: Path
    settings: MiningConfig


@dataclass(frozen=True)
class Shard:
    """The images [start, stop) of a search; start is a multiple of the batch size."""

    start: int
    stop: int

    def __str__(self) -> str:
        """Return the indices of the first and the last image."""
        return f"{self.start}-{self.stop - 1}"


def cut(n_images: int, n_at_once: int) -> list[Shard]:
    """Return the shards of a search: at most 16, of whole batches, about equal in size.

    n_at_once: images per batch, see activations.batch_size.
    """
    n_batches = max(1, -(-n_images // n_at_once))
    n_shards = min(_MOST, max(1, n_batches // _FEWEST_BATCHES))
    ends = [n_batches * i // n_shards * n_at_once for i in range(n_shards + 1)]
    return [Shard(start, min(stop, n_images)) for start, stop in itertools.pairwise(ends)]


def work(search: Search, shard: Shard, report: progress.Report = progress.ignore) -> TopK:
    """Return the strongest positions in a shard, in whichever process this runs.

    The process keeps the compiled model for its next shard. report: called with how many of the
    shard's images are done.
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


def merged(results: Iterable[TopK], k: int) -> TopK:
    """Return the k strongest positions of all shards, which may come in any order."""
    return reduce(lambda one, other: mining.merge(one, other, k), results)


def name(layer: str, shard: Shard) -> str:
    """Return the file name of a shard's result."""
    return f"shard-{layer}-{shard.start:012d}-{shard.stop:012d}.npz"


_lock = threading.Lock()  # only one thread at a time may import TensorFlow and load a model
_last: dict[tuple[str, str, bool], activations.Forward] = {}


def _opened(search: Search) -> tuple[activations.Forward, Any]:
    """Return a search's compiled model, cached until another is used, and memory-mapped images."""
    settings = search.settings
    key = search.digest, settings.layer, settings.lowest
    with _lock:
        if key not in _last:
            _last.clear()
            model = exports.load_model(search.model)
            _last[key] = activations.Forward(model, settings.layer, negated=settings.lowest)
        return _last[key], datasets.read(search.dataset).splits[settings.split].images
