"""Task: export the filters and their statistics."""

from cnn.data import dataset as datasets
from cnn.model_io import exports
from cnn.pipeline.steps import EXPORT_FILTERS
from cnn.store.manifests import Headline
from tasks.runtime.step_task import Work, step_task


@step_task(EXPORT_FILTERS)
def export_filters(work: Work) -> Headline:
    """Write each layer's kernels, and the table of its filters."""
    from cnn.explain import activations, filters

    model = exports.load_model(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    layers = activations.explained_layers(model)
    described = [filters.describe(model, layer, dataset, work.report) for layer in layers]
    rows = filters.write(work.folder, described)
    return {"n_filters": len(rows), "n_dead": sum(row["dead"] for row in rows)}
