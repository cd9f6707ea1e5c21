"""Task: mine the patches that most activate each filter."""

from collections.abc import Sequence

from cnn.config.run import MiningConfig
from cnn.data import dataset as datasets
from cnn.model_io import exports
from cnn.model_io.keras_types import Model
from cnn.pipeline.steps import MINE_LAYER, MINE_PATCHES
from cnn.store.manifests import Headline
from tasks.runtime import shards
from tasks.runtime.step_task import Work, step_task


@step_task(MINE_PATCHES)
def mine_patches(work: Work) -> Headline:
    """Write the patches and projections of every explained layer."""
    from cnn.explain import activations

    model, options = exports.load_model(work.inputs["model"]), work.settings.model_dump()
    layers = activations.explained_layers(model)
    return _mine(
        work, model, [MiningConfig(layer=layer, **options) for layer in layers], "explain."
    )


@step_task(MINE_LAYER)
def mine_layer(work: Work) -> Headline:
    """Write the patches and projections of one layer."""
    return _mine(work, exports.load_model(work.inputs["model"]), [work.settings], "")


def _mine(work: Work, model: Model, layers: Sequence[MiningConfig], section: str) -> Headline:
    """Check all layers, then mine each; section: prefix of setting names in error messages."""
    from cnn.explain import activations, patches

    names = exports.class_names(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    for settings in layers:
        patches.check(model, dataset.splits[settings.split], settings, section)
    mined = []
    for settings in layers:
        n_images = len(dataset.splits[settings.split])
        n_at_once = activations.batch_size(model, settings.layer)
        best = shards.search(work, settings, n_images, n_at_once)
        mined.append(patches.describe(model, dataset, settings, best, names))
    return {"n_patches": patches.write(work.folder, mined)}
