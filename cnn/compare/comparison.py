"""Compare two trained models on the same images: their filters and their predictions.

Classes are compared by name, because two models may number them differently.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.compare import matching
from cnn.compare.matching import Match, Pair
from cnn.config.run import MiningConfig, SplitName
from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError, ConfigError
from cnn.explain import activations, patches
from cnn.explain.patches import Patches
from cnn.formatting import size_words
from cnn.model_io import weight_checks
from cnn.model_io.keras_types import Model

SPLIT: SplitName = "test"
N_PATCHES = 4  # per filter, for the figures
Names = NDArray[np.str_]


@dataclass(frozen=True)
class ModelOnData:
    """One of the two models: a keras.Model and the names of its classes."""

    model: Model
    class_names: Sequence[str]

    def predict(self, images: NDArray[Any]) -> Names:
        """Return the name of each image's predicted class, (n,)."""
        return np.array(self.class_names)[activations.predict(self.model, images)]


@dataclass(frozen=True)
class LayerView:
    """A layer of one model: its kernels (filters, h, w, channels) and strongest patches."""

    kernels: NDArray[np.float32]
    patches: Patches

    @property
    def of_image(self) -> bool:
        """Whether the kernels apply to the image's pixels themselves."""
        return self.kernels.shape[1:] == self.patches.pixels.shape[2:]

    @property
    def largest(self) -> list[float]:
        """Largest activation of each filter, 0 for a filter that never fires."""
        first = {row["filter"]: row["activation"] for row in self.patches.rows if row["rank"] == 1}
        return [float(first.get(i, 0.0)) for i in range(len(self.kernels))]


@dataclass(frozen=True)
class MatchedLayer:
    """A layer's matched filters, and the layer in both models."""

    match: Match
    before: LayerView
    after: LayerView


@dataclass(frozen=True)
class Predictions:
    """True class names of the images, and both models' predictions for them, each (n,)."""

    labels: Names
    before: Names
    after: Names

    @property
    def right_before(self) -> NDArray[np.bool_]:
        """Which images the first model classifies correctly, (n,)."""
        return np.equal(self.before, self.labels)

    @property
    def right_after(self) -> NDArray[np.bool_]:
        """Which images the second model classifies correctly, (n,)."""
        return np.equal(self.after, self.labels)

    @property
    def changed(self) -> NDArray[np.int64]:
        """Indices of the images whose prediction changed."""
        return np.flatnonzero(np.not_equal(self.before, self.after))


@dataclass(frozen=True)
class Comparison:
    """Two models on the images of a split.

    left_out: the reasons why layers could not be compared, by layer name. matches, changed: rows
    of the tables `matches` and `changed_predictions`.
    """

    layers: list[MatchedLayer]
    left_out: Mapping[str, str]
    predictions: Predictions
    matches: list[dict[str, Any]]
    changed: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """Return the counts as values that JSON can hold."""
        predicted, rows = self.predictions, self.predictions.changed
        return {
            "split": SPLIT,
            "n_images": len(predicted.labels),
            "n_changed_predictions": len(rows),
            "n_became_right": int(predicted.right_after[rows].sum()),
            "n_became_wrong": int(predicted.right_before[rows].sum()),
            "layers": [{"layer": layer.match.layer, **_counts(layer)} for layer in self.layers],
            "left_out": dict(self.left_out),
        }


def compare(
    before: ModelOnData,
    after: ModelOnData,
    dataset: Dataset,
    report: progress.Report = progress.ignore,
) -> Comparison:
    """Compare two models on the test images of a data set.

    Raises ConfigError if a model does not read such images or there are none, ArtifactError if a
    model is damaged or was not made by filterscope. A layer that cannot be compared goes to
    `left_out`; the others are compared all the same.
    """
    images = dataset.splits[SPLIT].images
    for name, side in (("first", before), ("second", after)):
        _refuse_unsuited(name, side, images)
    layers, left_out = [], {}
    for layer in _explained(before, after):
        try:
            layers.append(_layer(before, after, layer, dataset, report))
        except ConfigError as error:
            left_out[layer] = str(error)
    predicted = predictions(before, after, dataset, SPLIT)
    matches = [row for layer in layers for row in _match_rows(layer)]
    return Comparison(layers, left_out, predicted, matches, _changed_rows(predicted, dataset))


def predictions(
    before: ModelOnData, after: ModelOnData, dataset: Dataset, split: str
) -> Predictions:
    """Return the predictions of both models for the images of a split."""
    images, labels = dataset.splits[split].images, dataset.splits[split].labels
    names = np.array(dataset.class_names)[labels]
    return Predictions(names, before.predict(images), after.predict(images))


def _explained(before: ModelOnData, after: ModelOnData) -> list[str]:
    """Return the layers that are explained in either model, the first model's first."""
    both = (activations.explained_layers(side.model) for side in (before, after))
    return list(dict.fromkeys(itertools.chain(*both)))


def _refuse_unsuited(name: str, side: ModelOnData, images: NDArray[Any]) -> None:
    """Raise ConfigError or ArtifactError if a model cannot classify these images."""
    expected, found = tuple(side.model.inputs[0].shape[1:]), tuple(images.shape[1:])
    if expected != found:
        raise ConfigError(
            f"the {name} model reads images of {size_words(expected)} pixels, the data set has "
            f"{size_words(found)}; choose runs whose images have the same size"
        )
    if not len(images):
        raise ConfigError(f"the data set has no {SPLIT} images to compare on")
    outputs = {layer.name: layer.output.shape[-1] for layer in side.model.layers}
    if outputs.get("logits") != len(side.class_names):
        raise ArtifactError(
            f"the {name} model was not made by filterscope: it has no layer logits with "
            f"{len(side.class_names)} outputs, one per class"
        )
    weight_checks.refuse_damaged(side.model)


def _layer(
    before: ModelOnData, after: ModelOnData, layer: str, dataset: Dataset, report: progress.Report
) -> MatchedLayer:
    for name, side in (("first", before), ("second", after)):
        if layer not in {item.name for item in side.model.layers}:
            raise ConfigError(f"layer {layer}: the {name} model has no layer of that name")
    match = matching.match(before.model, after.model, layer, dataset.splits[SPLIT].images, report)
    return MatchedLayer(match, *(_view(side, layer, dataset, report) for side in (before, after)))


def _view(side: ModelOnData, layer: str, dataset: Dataset, report: progress.Report) -> LayerView:
    settings = MiningConfig(layer=layer, split=SPLIT, patches_per_filter=N_PATCHES)
    mined = patches.mine(side.model, dataset, settings, side.class_names, report)
    return LayerView(activations.kernels(side.model, layer), mined)


def _counts(layer: MatchedLayer) -> dict[str, Any]:
    """Return the number of pairs per status, and the correlation that unrelated filters reach."""
    found = [pair.status for pair in layer.match.pairs]
    counts = {str(status): found.count(status) for status in matching.STATUSES}
    return {**counts, "null_correlation": layer.match.null}


def _match_rows(layer: MatchedLayer) -> list[dict[str, Any]]:
    largest = layer.before.largest, layer.after.largest

    def row(pair: Pair) -> dict[str, Any]:
        return {
            "layer": layer.match.layer,
            "filter_before": pair.before,
            "filter_after": pair.after,
            "status": pair.status,
            "correlation": pair.correlation,
            "null_correlation": layer.match.null,
            "max_activation_before": None if pair.before is None else largest[0][pair.before],
            "max_activation_after": None if pair.after is None else largest[1][pair.after],
        }

    return [row(pair) for pair in layer.match.pairs]


def _changed_rows(predicted: Predictions, dataset: Dataset) -> list[dict[str, Any]]:
    """Return one row per image whose prediction changed, in the split's order."""
    split = dataset.splits[SPLIT]
    numbers = {name: i for i, name in enumerate(dataset.class_names)}
    return [
        {
            "image_id": int(split.ids[i]),
            "split": SPLIT,
            "label": int(split.labels[i]),
            "prediction_before": numbers.get(str(predicted.before[i])),
            "prediction_after": numbers.get(str(predicted.after[i])),
            "label_name": str(predicted.labels[i]),
            "prediction_before_name": str(predicted.before[i]),
            "prediction_after_name": str(predicted.after[i]),
            "right_before": bool(predicted.right_before[i]),
            "right_after": bool(predicted.right_after[i]),
        }
        for i in predicted.changed
    ]
