"""Task: search one shard of the images. Also splits a search into shards and merges the results."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import Task, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from cnn import progress
from cnn.config.run import MiningConfig
from cnn.errors import ArtifactError, WorkerDiedError
from cnn.pipeline import fingerprints
from cnn.store import partial_results
from tasks.runtime import workers
from tasks.runtime.step_task import Work
from tasks.runtime.workers import Workers

if TYPE_CHECKING:
    from cnn.explain.mining import TopK
    from cnn.explain.shards import Search, Shard

_N_RETRIES = 3  # for a shard whose worker died


@dataclass
class _Tally:
    """Counts the images searched and reports the progress; thread-safe."""

    total: int
    done: int
    report: progress.Report
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, n: int) -> None:
        with self.lock:
            self.done += n
            self.report(progress.Progress(self.done, self.total))


@dataclass(frozen=True)
class _Job:
    """What the shards of one search share; code: fingerprints of the modules that search."""

    search: "Search"
    folder: Path
    code: Mapping[str, str]
    workers: Workers
    tally: _Tally


def search(work: Work, settings: MiningConfig, n_images: int, n_at_once: int) -> "TopK":
    """Return the top-k positions of every filter over all images.

    n_at_once: images per batch, see activations.batch_size. A small data set is a single shard,
    which is searched in this process. Shards that an interrupted run finished are reused.
    """
    from cnn.explain import shards

    model, dataset = (work.inputs[kind] for kind in ("model", "dataset"))
    digest = work.key.components["inputs"]["model"]
    searched = shards.Search(model, digest, dataset, settings)
    every = shards.cut(n_images, n_at_once)
    if len(every) == 1:
        return shards.work(searched, every[0], work.report)
    folder = work.run.store.checkpoints / work.key.digest
    return mapped(searched, every, folder, work.run.workers(), work.report, work.say)


def mapped(
    search: "Search",
    every: Sequence["Shard"],
    folder: Path,
    engaged: Workers,
    report: progress.Report,
    say: Callable[[str], None],
) -> "TopK":
    """Return the top-k positions over all shards; each shard still to search is a mapped task.

    folder: where the results of shards are stored. report: called with the number of images
    searched. say: called with a message if some shards were searched before.
    """
    from cnn.explain import shards

    layer = search.settings.layer
    paths = {shard: folder / shards.name(layer, shard) for shard in every}
    left = [shard for shard, path in paths.items() if partial_results.read(path) is None]
    if len(left) < len(every):
        say(f"{layer}: {len(every) - len(left)} of {len(every)} shards were searched before")
    n_images, n_left = (sum(s.stop - s.start for s in part) for part in (every, left))
    code = fingerprints.of(shards.__name__)
    job = _Job(search, folder, code, engaged, _Tally(n_images, n_images - n_left, report))
    for future in mine_shard.map(unmapped(job), left):
        future.result()
    return shards.merged(map(_kept, paths.values()), search.settings.patches_per_filter)


def _kept(path: Path) -> "TopK":
    """Return the stored result of a shard; raises ArtifactError if it is gone."""
    from cnn.explain.mining import TopK

    arrays = partial_results.read(path)
    if arrays is None:
        raise ArtifactError(f"{path} was removed during the search; run again")
    return TopK(**arrays)


def _worker_died(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, WorkerDiedError)


@task(
    task_run_name="mine_{job.search.settings.layer}_{shard}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=_N_RETRIES,
    retry_condition_fn=_worker_died,
)
def mine_shard(job: _Job, shard: "Shard") -> None:
    """Have a worker search a shard, and store the result."""
    from cnn.explain import shards

    best = job.workers.run(workers.with_same_code, job.code, shards.work, job.search, shard)
    partial_results.write(job.folder / shards.name(job.search.settings.layer, shard), vars(best))
    job.tally.add(shard.stop - shard.start)
