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
    """What a step needs for its work: run, key, output folder, verified inputs, settings.

    A step that can resume continues from `checkpoint`, if any. Messages passed to `say` go to
    the log and, with the reason why the step ran, into the run's record.
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
        """Submit the task to run beside others; import TensorFlow here first if it will compute."""
        if self.step.computes:
            key = self.step.key(self.step.resolve(settings, run.store.downloads), refs)
            if not planning.decide(run.store, self.step, key, run.refresh).manifest:
                run.device()
        return self.task.submit(run, refs, settings)


def step_task(step: Step, **options: Any) -> Callable[[Produce], StepTask]:
    """Return a decorator that turns a step's function into a Prefect task with these options."""

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
                reasons = [decision.why]
                if decision.manifest:
                    ref = _reuse(step, decision.manifest.ref, decision.why)
                else:
                    ref = _make(step, produce, run, refs, resolved, key, decision, reasons)
            outcome = StepOutcome(
                step=step.name,
                state="cached" if decision.manifest else "ran",
                why="; ".join(reasons),
                seconds=time.monotonic() - started,
                ref=ref,
            )
            run.add(outcome)
            name = "Cached" if decision.manifest else None
            return Completed(name=name, message=f"{ref}: {outcome.why}", data=ref)

        return StepTask(step, perform)

    return decorate


def _reuse(step: Step, ref: Ref, why: str) -> Ref:
    """Return the ref of a cached artifact; show a cached training as complete in the UI."""
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
    reasons: list[str],
) -> Ref:
    """Do a step's work and return the ref of its artifact; messages are added to `reasons`."""
    log = get_run_logger()
    log.info("%s runs: %s", step.name, decision.why)
    if decision.problem:
        run.store.quarantine(key, decision.problem)

    def say(text: str) -> None:
        log.info("%s", text)
        reasons.append(text)

    checkpoint, messages = checkpointing.newest(run, key) if step.resumes else (None, [])
    for text in messages:
        say(text)
    device = run.device().describe() if step.computes else None
    inputs = {ref.kind: run.store.open(ref) for ref in refs}

    def into(folder: Path) -> Headline:
        with reported(step.name, run.bars) as report:
            return produce(Work(run, key, folder, inputs, resolved.value, report, checkpoint, say))

    replace = step.name in run.refresh
    manifest = run.store.publish(key, refs, into, device, replace=replace)
    if step.resumes:
        run.store.finish(key)
    return manifest.ref
