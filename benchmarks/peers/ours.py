"""filterscope: the loop alone, whole trainings, evaluation, and a script from start to model."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from cnn.config.run import DataConfig, RuntimeConfig
from cnn.config.training import Training
from cnn.data import sources
from cnn.data.dataset import Dataset
from cnn.train import device, fit, loop, networks, recipes

_BLOCK = 25  # steps, as cnn.train.fit runs them


def steps(batch: str, precision: str = "float32", determinism: str = "on") -> peers.Steps:
    """Return a function that trains the recipe `spec`."""
    device.prepare(RuntimeConfig())
    if determinism == "off":
        from tensorflow.python.framework import config

        config.disable_op_determinism()
    settings = recipes.SPEC.model_copy(update={"batch_size": int(batch), "precision": precision})
    network = networks.build(settings, (28, 28, 1), 10, seed=0)
    training = loop.Loop(network, settings, 0, peers.images(), peers.labels())
    done = 0

    def take(n: int) -> None:
        nonlocal done
        for first in range(done, done + n, _BLOCK):
            training.run(first, min(_BLOCK, done + n - first))
        done += n

    take(peers.N_WARM)
    return take


def training(recipe: str, changes: str = "{}") -> peers.Training:
    """Return a function that trains a recipe, with some fields changed, on the stratified split."""
    device.prepare(RuntimeConfig())
    data, settings = dataset(), changed(recipe, json.loads(changes))
    fit.fit(data, settings.model_copy(update={"steps": peers.N_WARM}), 0)
    return lambda seed: accuracy(fit.fit(data, settings, seed).model, data)


def evaluation() -> Any:
    """Return a function that computes the logits of the 10,000 test images."""
    from cnn.evaluate import predictions

    device.prepare(RuntimeConfig())
    logits = predictions.logits_of(networks.build(recipes.SPEC, (28, 28, 1), 10, seed=0))
    images = peers.images("t10k")

    def evaluate(n: int) -> None:
        for _ in range(n):
            logits(images)

    evaluate(1)
    return evaluate


def changed(recipe: str, changes: dict[str, Any]) -> Training:
    """Return a recipe's training with some fields changed, its precision resolved."""
    from cnn.train import precision

    base = recipes.RECIPES[recipe]  # type: ignore[index]
    return precision.resolved(Training.model_validate(base.model_dump() | changes))


def dataset() -> Dataset:
    """Return MNIST with the stratified split of a run."""
    config = DataConfig(source="folder", path=peers.folder())
    with tempfile.TemporaryDirectory() as nowhere:
        source = sources.identify(config, Path(nowhere))
        return sources.load(source, config)


def accuracy(network: Any, data: Dataset, split: str = "test") -> float:
    """Return the share of a split's images that a trained keras.Model gets right."""
    from cnn.evaluate import predictions

    part = data.splits[split]
    predicted = predictions.logits_of(network)(part.images).argmax(axis=1)
    return float(np.mean(predicted == part.labels))


def main(folder: Path) -> None:
    """Train `fast` and save the model: a process from start to end."""
    from cnn.model_io import exports

    device.prepare(RuntimeConfig())
    data = dataset()
    folder.mkdir()
    exports.save_model(folder, fit.fit(data, changed("fast", {}), 0).model, data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
