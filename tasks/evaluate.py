"""Task: measure how good the model is."""

from cnn.data import dataset as datasets
from cnn.model_io import exports
from cnn.pipeline.steps import EVALUATE_MODEL
from cnn.store.manifests import Headline
from tasks.runtime.step_task import Work, step_task


@step_task(EVALUATE_MODEL)
def evaluate_model(work: Work) -> Headline:
    """Write predictions, metrics, per-class scores, confusion and calibration."""
    from cnn.evaluate import evaluation

    model = exports.load_model(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    measured = evaluation.evaluate(model, dataset, work.settings.calibration_bins, work.report)
    evaluation.write(work.folder, measured)
    return measured.headline
