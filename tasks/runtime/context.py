"""The context of one flow run: its store, its settings, and the outcome of each step."""

import logging
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from cnn.config.run import RunConfig, StepName
from cnn.io import atomic
from cnn.pipeline.steps import COMPARE_MODELS, STEPS, with_followers
from cnn.runs.records import ComparedWith, RunRecord, StepOutcome, folder_name
from cnn.store import in_use
from cnn.store.keys import Key
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store, default_root
from cnn.train import recipes
from cnn.train.device import Device
from tasks.runtime import logs, workers
from tasks.runtime.progress import Bars
from tasks.runtime.workers import Workers

log = logging.getLogger("cnn.run")


class RunContext:
    """What the tasks of one flow run share; thread-safe.

    Inside its `with` block, gc does not remove the artifacts that the run uses.
    """

    def __init__(
        self,
        config: RunConfig,
        store: Path | None,
        refresh: Collection[StepName] | None = None,
        note: str = "",
    ) -> None:
        """Start a run.

        Raises StoreUnwritableError, and ConfigError for a setting without effect or for a
        missing GPU or Dask.
        """
        logs.prepare()
        self.config = config
        self._training = recipes.resolve(config.train)
        self.store = Store(store or default_root())
        self.bars = Bars()
        self.compared: ComparedWith | None = None
        self.refresh = with_followers(refresh or ())
        self.created = datetime.now(UTC)
        self._note = note
        self._started = time.monotonic()
        self._outcomes: dict[str, StepOutcome] = {}
        self._lock = threading.Lock()
        self._device: Device | None = None
        self._workers: Workers | None = None
        self._held = ExitStack()
        self.store.ensure_writable()
        self.store.sweep()
        workers.refuse_missing(config.runtime)
        if config.runtime.device == "gpu":
            self.device()  # without a GPU the run fails before anything is fetched
        if note:
            log.warning("%s", note)

    def __enter__(self) -> Self:
        """Start to list the artifacts in use; raises StoreUnwritableError."""
        self._uses = self._held.enter_context(in_use.listed(self.store.root))
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Release artifacts and workers; if the run failed, end the workers at once."""
        self._held.__exit__(*exc_info)

    def uses(self, key: Key) -> None:
        """Protect the artifact of a key, which may not exist yet, from gc until the run ends."""
        self._uses.add(key)

    def workers(self) -> Workers:
        """Return the workers that search shards; they end with the run."""
        with self._lock:
            if self._workers is None:
                engaged = workers.engaged(self.config.runtime)
                self._workers = self._held.enter_context(engaged)
            return self._workers

    def device(self, threads: int | None = None) -> Device:
        """Return the device; the first call imports TensorFlow in the calling thread.

        threads: intra-op threads; used only if the settings name none and TensorFlow is not
        imported yet.
        """
        from cnn.train import device

        with self._lock:
            if self._device is None:
                runtime = self.config.runtime
                if runtime.threads is None and "tensorflow" not in sys.modules:
                    runtime = runtime.model_copy(update={"threads": threads})
                self._device = device.prepare(runtime)
            return self._device

    def add(self, outcome: StepOutcome) -> None:
        """Record the outcome of a step."""
        with self._lock:
            self._outcomes[outcome.step] = outcome

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield an empty temporary folder in the store's root."""
        with atomic.temporary_folder(self.store.root, "scratch") as folder:
            yield folder

    def record(self, refs: Mapping[Kind, Ref], error: str = "", **more: Any) -> RunRecord:
        """Return the run's record so far; refs: its artifacts by kind."""
        with self._lock:
            names = [step.name for step in (*STEPS, COMPARE_MODELS)]
            outcomes = [self._outcomes[name] for name in names if name in self._outcomes]
        manifests = {kind: self.store.manifest(ref) for kind, ref in refs.items()}
        loaded = manifests["dataset"].headline["name"] if "dataset" in manifests else None
        data, choice = str(loaded or self.config.data.source), self.config.train
        return RunRecord(
            run=folder_name(self.created, f"{data}-{choice.recipe}-seed{choice.seed}"),
            created=self.created,
            status="failed" if error else "completed",
            data=data,
            note=self._note,
            recipe=choice.recipe,
            seed=choice.seed,
            config=self.config.model_dump(mode="json"),
            training=self._training.model_dump(),
            steps=tuple(outcomes),
            headline=manifests["evaluation"].headline if "evaluation" in manifests else {},
            seconds=time.monotonic() - self._started,
            environment=manifests["model"].environment if "model" in manifests else {},
            compared=self.compared,
            error=error,
            **more,
        )
