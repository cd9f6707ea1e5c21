"""Task: compare a run's model with the one that is promoted on its track."""

import logging

from cnn.data import dataset as datasets
from cnn.errors import FilterscopeError
from cnn.store import contents, exports, promoted
from cnn.store.manifests import Headline
from cnn.store.promoted import Current
from cnn.store.refs import Ref
from cnn.store.runs import Compared
from cnn.store.steps import COMPARE_MODELS, Other
from tasks.run import Run
from tasks.step import Work, step_task

log = logging.getLogger("cnn.run")


@step_task(COMPARE_MODELS)
def compare_models(work: Work) -> Headline:
    """Write which filters are new, lost and changed, and the predictions that are others now."""
    from cnn.explain import comparison
    from cnn.explain.comparison import Side
    from cnn.report import pairs

    other: Other = work.settings
    before = Side(exports.load_model(other.folder), other.class_names)
    names = exports.class_names(work.inputs["model"])
    after = Side(exports.load_model(work.inputs["model"]), names)
    dataset = datasets.read(work.inputs["dataset"])
    found = comparison.compare(before, after, dataset, work.report)
    pairs.write(work.folder, found, dataset.splits[comparison.SPLIT])
    return {name: found.summary()[name] for name in ("n_images", "n_changed_predictions")}


def compare_with_promoted(run: Run, model: Ref, dataset: Ref) -> tuple[Ref, ...]:
    """Return the comparison with the promoted model, if there is one and it is another.

    Whatever is wrong with it is noted in the run and does not fail it.
    """
    data = str(run.store.manifest(dataset).headline["name"])
    track = promoted.track_of(run.config.gate, data)
    try:
        current = promoted.current(run.store.root, track)
        if current is None or current.model == model.digest:
            said = "nothing is" if current is None else "this very model is"
            log.info("%s promoted on track %s: no comparison", said, track)
            return ()
        run.compared = Compared(run=current.run)
        return (compare_models(run, model, dataset, settings=_other(current)),)
    except FilterscopeError as error:
        log.warning("not compared with the promoted model of track %s: %s", track, error)
        run.compared = Compared(run=run.compared.run if run.compared else "", problem=str(error))
        return ()


def _other(current: Current) -> Other:
    """Return the promoted model as its copy is now; raises ArtifactError."""
    return Other(
        run=current.run,
        folder=current.model_folder,
        digest=contents.content_digest(current.model_folder / exports.MODEL_NAME),
        class_names=current.class_names,
    )
