"""Adapts a step of cnn.pipeline.steps to Prefect: cached state, why it ran, progress, names."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Completed

from cnn import progress
from cnn.config.base import Settings
from cnn.pipeline import planning
from cnn.pipeline.steps import Resolved, Step
from cnn.runs.records import StepOutcome
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Kind, Ref
from cnn.train.checkpoints import Checkpoint
from tasks.runtime import checkpointing
from tasks.runtime.context import RunContext
from tasks.runtime.progress import Artifact, reported


@dataclass(frozen=True)
class Work:
    """What a step's work is given: the run, its key, folders to write and read, settings.

    The inputs were just verified. A step that resumes goes on from `checkpoint`, if any; what
    it has to `say` on why it ran stands in the log and in the run's record.
    """

    run: RunContext
    key: Key
    folder: Path
    inputs: Mapping[Kind, Path]
    settings: Any
    report: progress.Report
    checkpoint: Checkpoint | None
    say: Callable[[str], None]


Produce = Callable[[Work], Headline]


@dataclass(frozen=True)
class StepTask:
    """A step as a Prefect task, called with the run, the refs it reads and its settings."""

    step: Step
    task: Task[..., Any]

    def __call__(self, run: RunContext, *refs: Ref, settings: Settings | None = None) -> Ref:
        """Run the task in this thread and return its ref."""
        state: Any = self.task(run, refs, settings, return_state=True)
        ref: Ref = state.result()
        return ref

    def submit(
        self, run: RunContext, *refs: Ref, settings: Settings | None = None
    ) -> PrefectFuture[Ref]:
        """Start the task beside others; TensorFlow is imported here first if it will compute."""
        if self.step.computes:
            key = self.step.key(self.step.resolve(settings, run.store.downloads), refs)
            if not planning.decide(run.store, self.step, key, run.refresh).manifest:
                run.device()
        return self.task.submit(run, refs, settings)


def step_task(step: Step, **options: Any) -> Callable[[Produce], StepTask]:
    """Make a Prefect task, with these options, of the function that does a step's work."""

    def decorate(produce: Produce) -> StepTask:
        @task(
            name=step.name,
            task_run_name=step.name,
            cache_policy=NO_CACHE,
            persist_result=False,
            **options,
        )
        def perform(
            run: RunContext, refs: tuple[Ref, ...], settings: Settings | None
        ) -> State[Ref]:
            started = time.monotonic()
            step.fetch(settings, run.store.downloads)
            resolved = step.resolve(settings, run.store.downloads)
            key = step.key(resolved, refs)
            run.uses(key)
            with checkpointing.decided(step, run, key) as decision:
                words = [decision.why]
                if decision.manifest:
                    ref = _take(step, decision.manifest.ref, decision.why)
                else:
                    ref = _make(step, produce, run, refs, resolved, key, decision, words)
            outcome = StepOutcome(
                step=step.name,
                state="cached" if decision.manifest else "ran",
                why="; ".join(words),
                seconds=time.monotonic() - started,
                ref=ref,
            )
            run.add(outcome)
            name = "Cached" if decision.manifest else None
            return Completed(name=name, message=f"{ref}: {outcome.why}", data=ref)

        return StepTask(step, perform)

    return decorate


def _take(step: Step, ref: Ref, why: str) -> Ref:
    """Return the ref of an artifact that is there already."""
    if step.makes == "model":
        Artifact(step.name).send(100, f"cached: {why}")
    return ref


def _make(
    step: Step,
    produce: Produce,
    run: RunContext,
    refs: tuple[Ref, ...],
    resolved: Resolved,
    key: Key,
    decision: planning.Decision,
    words: list[str],
) -> Ref:
    """Do a step's work and return the ref of what it published; `words` say more on why."""
    log = get_run_logger()
    log.info("%s runs: %s", step.name, decision.why)
    if decision.problem:
        run.store.quarantine(key, decision.problem)

    def say(text: str) -> None:
        log.info("%s", text)
        words.append(text)

    checkpoint, said = checkpointing.newest(run, key) if step.resumes else (None, [])
    for text in said:
        say(text)
    device = run.device().describe() if step.computes else None
    inputs = {ref.kind: run.store.open(ref) for ref in refs}

    def into(folder: Path) -> Headline:
        with reported(step.name, run.bars) as report:
            return produce(Work(run, key, folder, inputs, resolved.value, report, checkpoint, say))

    replace = step.name in run.refresh
    made = run.store.publish(key, refs, into, device, replace=replace)
    if step.resumes:
        run.store.finish(key)
    return made.ref
