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

# Prefect knows no limit of a single deployment's: nothing that ends well takes half as long.
TIMEOUT_SECONDS = 12 * 3600


@flow(
    name="train-and-explain",
    timeout_seconds=TIMEOUT_SECONDS,
    flow_run_name=flow_run.flow_run_name,
    persist_result=False,
    result_serializer="json",  # of a failure, which Prefect stores all the same: never a pickle
)
def train_and_explain(
    config: RunConfig = RunConfig(),
    store: Path | None = None,
    refresh: list[StepName] | None = None,
    note: str = "",
) -> Path | State[None]:
    """Train a small convolutional network, measure it, show what its filters look at.

    Returns the run's folder; a scheduled run that a later one overtook is Cancelled.

    Args:
        config: all settings of the run.
        store: root of the artifact store; FILTERSCOPE_STORE or ./artifacts by default.
        refresh: steps to run although they are cached, with all that follow from them.
        note: what a reader of the report should know about this run.

    """
    if overtaken := deployment.superseded():
        return overtaken
    deployment.prepare(config, store)
    config = flow_run.dated(config)
    with RunContext(config, store, refresh, note) as run:
        dataset = load_dataset(run, settings=config.data)
        model = train_model(run, dataset, settings=config.train)
        evaluation = evaluate_model.submit(run, model, dataset, settings=config.evaluate)
        filters = export_filters.submit(run, model, dataset)
        patches = mine_patches.submit(run, model, dataset, settings=config.explain)
        made = (dataset, model, evaluation.result(), filters.result(), patches.result())
        report = write_report(run, *made, settings=config.report)
        comparison = compare_with_promoted(run, model, dataset)
        return publish_run(run, *made, report, *comparison)
