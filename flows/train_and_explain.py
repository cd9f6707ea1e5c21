"""The main job: data, training, evaluation, filters, patches, report, comparison, run folder."""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from cnn.config.run import RunConfig, StepName
from tasks.compare import compare_with_promoted
from tasks.data import load_dataset
from tasks.evaluate import evaluate_model
from tasks.filters import export_filters
from tasks.patches import mine_patches
from tasks.publish import publish_run
from tasks.report import write_report
from tasks.runtime import deployment, flow_run
from tasks.runtime.context import RunContext
from tasks.train import train_model

# Prefect has no time limit per deployment. A run that completes takes less than half of this.
TIMEOUT_SECONDS = 12 * 3600


@flow(
    name="train-and-explain",
    timeout_seconds=TIMEOUT_SECONDS,
    flow_run_name=flow_run.flow_run_name,
    persist_result=False,
    result_serializer="json",  # Prefect stores failures in any case; never as a pickle
)
def train_and_explain(
    config: RunConfig = RunConfig(),
    store: Path | None = None,
    refresh: list[StepName] | None = None,
    note: str = "",
) -> Path | State[None]:
    """Train a small convolutional network, measure it, and show what its filters look at.

    Returns the run's folder; a scheduled run that a later one supersedes ends as Cancelled.

    Args:
        config: all settings of the run.
        store: root of the artifact store; FILTERSCOPE_STORE or ./artifacts by default.
        refresh: steps to run even if they are cached, with every step that depends on them.
        note: what a reader of the report should know about this run.

    """
    if cancelled := deployment.superseded():
        return cancelled
    deployment.prepare(config, store)
    config = flow_run.dated(config)
    with RunContext(config, store, refresh, note) as run:
        dataset = load_dataset(run, settings=config.data)
        model = train_model(run, dataset, settings=config.train)
        evaluation = evaluate_model.submit(run, model, dataset, settings=config.evaluate)
        filters = export_filters.submit(run, model, dataset)
        patches = mine_patches.submit(run, model, dataset, settings=config.explain)
        refs = (dataset, model, evaluation.result(), filters.result(), patches.result())
        report = write_report(run, *refs, settings=config.report)
        comparison = compare_with_promoted(run, model, dataset)
        return publish_run(run, *refs, report, *comparison)
