"""Task: compare a run's model with the one that is promoted on its track."""

import logging

from cnn.data import dataset as datasets
from cnn.errors import FilterscopeError
from cnn.model_io import exports
from cnn.pipeline.steps import COMPARE_MODELS, Baseline
from cnn.promotion import registry
from cnn.promotion.registry import Incumbent
from cnn.runs.records import ComparedWith
from cnn.store import digests
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from tasks.runtime.context import RunContext
from tasks.runtime.step_task import Work, step_task

log = logging.getLogger("cnn.run")


@step_task(COMPARE_MODELS)
def compare_models(work: Work) -> Headline:
    """Write how the filters of two models match, and which predictions changed."""
    from cnn.compare import comparison
    from cnn.compare.comparison import ModelOnData
    from cnn.report import comparison as report

    promoted: Baseline = work.settings
    before = ModelOnData(exports.load_model(promoted.folder), promoted.class_names)
    names = exports.class_names(work.inputs["model"])
    after = ModelOnData(exports.load_model(work.inputs["model"]), names)
    dataset = datasets.read(work.inputs["dataset"])
    compared = comparison.compare(before, after, dataset, work.report)
    report.write(work.folder, compared, dataset.splits[comparison.SPLIT])
    return {name: compared.summary()[name] for name in ("n_images", "n_changed_predictions")}


def compare_with_promoted(run: RunContext, model: Ref, dataset: Ref) -> tuple[Ref, ...]:
    """Return the ref of the comparison with the promoted model; () if there is nothing to compare.

    If the promoted model cannot be compared, the run records the reason and goes on.
    """
    data = str(run.store.manifest(dataset).headline["name"])
    track = registry.track_of(run.config.gate, data)
    try:
        current = registry.current(run.store.root, track)
        if current is None or current.model == model.digest:
            promoted = "no model" if current is None else "this same model"
            log.info("no comparison: %s is promoted on track %s", promoted, track)
            return ()
        run.compared = ComparedWith(run=current.run)
        return (compare_models(run, model, dataset, settings=_baseline(current)),)
    except FilterscopeError as error:
        log.warning("cannot compare with the promoted model of track %s: %s", track, error)
        run.compared = ComparedWith(
            run=run.compared.run if run.compared else "", problem=str(error)
        )
        return ()


def _baseline(current: Incumbent) -> Baseline:
    """Return the promoted model from its copy in `promoted`; raises ArtifactError."""
    return Baseline(
        run=current.run,
        folder=current.model_folder,
        digest=digests.content_digest(current.model_folder / exports.MODEL_NAME),
        class_names=current.class_names,
    )
