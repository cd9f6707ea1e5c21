"""Task: measure how good the model is."""

from cnn.data import dataset as datasets
from cnn.store import exports, tables
from cnn.store.manifests import Headline
from cnn.store.steps import EVALUATE_MODEL
from tasks.step import Work, step_task


@step_task(EVALUATE_MODEL)
def evaluate_model(work: Work) -> Headline:
    """Write predictions, metrics, per-class scores, confusion and calibration."""
    from cnn.evaluate import evaluation

    model = exports.load_model(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    measured = evaluation.evaluate(model, dataset, work.settings.calibration_bins, work.report)
    for name, rows in measured.tables.items():
        tables.write_rows(work.folder / f"{name}.parquet", name, rows)
    return measured.headline
