"""Task: mine the patches that most activate each filter."""

from collections.abc import Sequence
from typing import Any

from cnn.config.run import MiningConfig
from cnn.data import dataset as datasets
from cnn.model_io import exports
from cnn.pipeline.steps import MINE_LAYER, MINE_PATCHES
from cnn.store.manifests import Headline
from cnn.store.refs import Ref
from tasks.runtime import shards
from tasks.runtime.context import RunContext
from tasks.runtime.step_task import Work, step_task


def refuse_unfit(run: RunContext, dataset: Ref) -> None:
    """Raise ConfigError, before a network is trained, where its patches could not be mined."""
    from cnn.explain import patches
    from cnn.train import networks, recipes

    images, settings = datasets.read(run.store.open(dataset)), run.config.explain
    sizes = networks.map_sizes(recipes.resolve(run.config.train), images.image_shape)
    n_images = len(images.splits[settings.split])
    for layer, size in sizes.items():
        patches.refuse_too_many(settings, layer, n_images, size, "explain.")


@step_task(MINE_PATCHES)
def mine_patches(work: Work) -> Headline:
    """Write the patches and projections of every layer that the main job explains."""
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


def _mine(work: Work, model: Any, wanted: Sequence[MiningConfig], section: str) -> Headline:
    from cnn.explain import activations, patches

    names = exports.class_names(work.inputs["model"])
    dataset = datasets.read(work.inputs["dataset"])
    for settings in wanted:
        patches.check(model, dataset.splits[settings.split], settings, section)
    mined = []
    for settings in wanted:
        n_images = len(dataset.splits[settings.split])
        n_at_once = activations.batch_size(model, settings.layer)
        best = shards.search(work, settings, n_images, n_at_once)
        mined.append(patches.describe(model, dataset, settings, best, names))
    return {"n_patches": patches.write(work.folder, mined)}
