"""The image patches that most activate each filter: the work of the step mine_patches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import progress
from cnn.config.run import ExplainConfig, MiningConfig
from cnn.data.dataset import Dataset, Split
from cnn.errors import ConfigError
from cnn.explain import activations, mining, receptive_field
from cnn.explain.activations import Batch, Forward
from cnn.explain.mining import MiningOptions, TopK
from cnn.explain.receptive_field import Span
from cnn.explain.views import VIEWS
from cnn.explain.views.base import MAX_RANKS, Unit, View
from cnn.formatting import size_words
from cnn.model_io import weight_checks
from cnn.model_io.keras_types import Model
from cnn.tables import parquet

PIXELS = "patches"  # the view that shows the pixels themselves


@dataclass(frozen=True)
class Patches:
    """One layer's patches: a row each, ranks from 1, and their views by name.

    The view `patches` has the pixels of the image, 0..255, (filters, k, h, w, channels); outside of
    the image, and for ranks without a patch, 0. The others (cnn.explain.views) are of the first
    MAX_RANKS ranks, float32; there are none of the lowest activations.
    """

    layer: str
    rows: list[dict[str, Any]]
    views: dict[str, NDArray[Any]]

    @property
    def pixels(self) -> NDArray[Any]:
        """The view `patches`."""
        return self.views[PIXELS]


def check(model: Model, split: Split, settings: MiningConfig, section: str = "") -> None:
    """Refuse, before anything is computed, what cannot be mined.

    section: with its dot, of the settings that are named.

    Raises ConfigError: for a layer that is not there, layers that a view is not defined for (there
    are none of the lowest), images of another size than the model's, a split without
    images, more patches than positions. Raises ArtifactError for weights that are not finite.
    """
    weight_checks.refuse_damaged(model)
    layer = settings.layer
    shape = receptive_field.chain(model, layer)[-1].output.shape[1:]
    for view in () if settings.lowest else VIEWS:
        view.refuse(model, layer)
    wanted, found = tuple(model.inputs[0].shape[1:]), tuple(split.images.shape[1:])
    if found != wanted:
        raise ConfigError(
            f"images of {size_words(found)} pixels are refused; "
            f"the model reads {size_words(wanted)}"
        )
    _refuse_too_many(settings, layer, len(split), (shape[0], shape[1]), section)
    if settings.filters and max(settings.filters) >= shape[-1]:
        raise ConfigError(
            f"filters: {max(settings.filters)} is refused; {layer} has the filters 0 to "
            f"{shape[-1] - 1}"
        )


def _refuse_too_many(
    settings: ExplainConfig, layer: str, n_images: int, sides: tuple[int, int], section: str
) -> None:
    """Raise ConfigError where there are no images, or fewer positions than patches to be kept.

    sides: height and width of the layer's maps. section: as of `check`.
    """
    if not n_images:
        raise ConfigError(f"{section}split: {settings.split} is refused, it has no images here")
    k = settings.patches_per_filter
    n_places = n_images * (1 if settings.one_per_image else sides[0] * sides[1])
    if k > n_places:
        raise ConfigError(
            f"{section}patches_per_filter: {k:,} is refused; a filter of {layer} has "
            f"{n_places:,} positions in the {n_images:,} {settings.split} images"
        )


def refuse_unfit(model: Model, dataset: Dataset, settings: ExplainConfig) -> None:
    """Refuse, before a network is trained, what it could not be mined for; raises as `check`."""
    split = dataset.splits[settings.split]
    for layer in activations.explained_layers(model):
        check(model, split, MiningConfig(layer=layer, **settings.model_dump()), "explain.")


def mine(
    model: Model,
    dataset: Dataset,
    settings: MiningConfig,
    predicted_names: Sequence[str],
    report: progress.Report = progress.ignore,
) -> Patches:
    """Return the strongest patches of every filter of a layer over the images of a split.

    Fewer where fewer positions fire; none for a filter that never fires. predicted_names: of
    the model's classes; those of the data set may be others. Raises ConfigError as `check`
    does.
    """
    images = dataset.splits[settings.split].images
    check(model, dataset.splits[settings.split], settings)
    best = search(
        Forward(model, settings.layer, negated=settings.lowest),
        images,
        settings,
        report=lambda n: report(progress.Progress(n, len(images))),
    )
    return describe(model, dataset, settings, best, predicted_names)


def search(
    forward: Forward,
    images: NDArray[Any],
    settings: MiningConfig,
    start: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> TopK:
    """Return the strongest positions of every filter over the images from `start` on.

    forward: of the settings' layer, negated where the lowest are wanted. images: (n, h, w, c),
    pixels 0..255. start: a multiple of forward.n_at_once. report: is told the index of the
    image behind each batch.
    """

    def batches() -> Iterator[Batch]:
        for batch in forward.stream(images, start):
            yield batch
            report(batch.stop)

    return mining.mine(batches(), _rule(settings, forward.n_filters))


def describe(
    model: Model,
    dataset: Dataset,
    settings: MiningConfig,
    best: TopK,
    predicted_names: Sequence[str],
) -> Patches:
    """Return the rows and the views of what was found.

    predicted_names: of the model's classes; those of the data set may be others.
    """
    layer, split = settings.layer, dataset.splits[settings.split]
    boxes = _boxes(model, layer)
    found = _positions(best, (len(boxes[0]), len(boxes[1])), settings.lowest)
    predicted = _predicted(model, split.images, [position.image for position in found])
    rows = []
    for position in found:
        label, prediction = int(split.labels[position.image]), predicted[position.image]
        rows.append(
            {
                "layer": layer,
                "filter": position.filter,
                "rank": position.rank,
                "split": settings.split,
                "image_id": int(split.ids[position.image]),
                "y": position.y,
                "x": position.x,
                "activation": position.activation,
                **_box_columns(boxes[0][position.y], boxes[1][position.x]),
                "label": label,
                "prediction": prediction,
                "label_name": dataset.class_names[label],
                "prediction_name": predicted_names[prediction],
                "n_tied": int(best.n_tied[position.filter]),
            }
        )
    n_filters = len(best.n_tied)
    shape = (n_filters, settings.patches_per_filter)
    pixels = (split.images[position.image] for position in found)
    views = {PIXELS: _cropped(pixels, found, boxes, shape, split.images)}
    first = [position for position in found if position.rank <= MAX_RANKS]
    shape = (n_filters, min(settings.patches_per_filter, MAX_RANKS))
    for view in () if settings.lowest else VIEWS:
        shown = _shown(view, model, layer, split.images, first)
        views[view.name] = _cropped(shown, first, boxes, shape, shown)
    return Patches(layer, rows, views)


def write(folder: Path, mined: Sequence[Patches]) -> int:
    """Write an array for each view of each layer, and one table of all patches.

    Returns the number of patches.
    """
    for item in mined:
        for name, array in item.views.items():
            np.save(folder / f"{name}-{item.layer}.npy", array, allow_pickle=False)
    rows = [row for item in mined for row in item.rows]
    parquet.write_rows(folder / "patches.parquet", "patches", rows)
    return len(rows)


@dataclass(frozen=True)
class _Position:
    """One mined position."""

    filter: int
    rank: int
    image: int
    y: int
    x: int
    activation: float


def _positions(best: TopK, sides: tuple[int, int], lowest: bool) -> list[_Position]:
    height, width = sides
    firsts = np.searchsorted(best.filters, best.filters)
    ranks = np.arange(len(firsts)) - firsts + 1
    values = 0.0 - best.activations if lowest else best.activations
    rest, x = np.divmod(best.positions, width)
    image, y = np.divmod(rest, height)
    columns = (best.filters, ranks, image, y, x, values)
    return [_Position(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _boxes(model: Model, layer: str) -> tuple[list[Span], list[Span]]:
    """Return the pixels that each row, and each column, of a layer's map sees."""
    along_y, along_x = receptive_field.windows(model, layer)
    _, height, width, _ = model.get_layer(layer).output.shape
    return (
        [receptive_field.span(along_y, y) for y in range(height)],
        [receptive_field.span(along_x, x) for x in range(width)],
    )


def _predicted(model: Model, images: NDArray[Any], chosen: Iterable[int]) -> dict[int, int]:
    """Return the predicted class of each chosen image, by its index."""
    indices = np.unique(np.fromiter(chosen, np.int64))
    classes = activations.predict(model, images[indices])
    return dict(zip(indices.tolist(), classes.tolist(), strict=True))


def _shown(
    view: View, model: Model, layer: str, images: NDArray[Any], found: Sequence[_Position]
) -> NDArray[np.float32]:
    """Return a view of some positions, each in the space of its image."""
    indices = np.unique(np.array([position.image for position in found], np.int64))
    units = [
        Unit(int(np.searchsorted(indices, p.image)), p.y, p.x, p.filter, p.activation)
        for p in found
    ]
    return view.compute(model, layer, images[indices], units)


def _cropped(
    wholes: Iterable[NDArray[Any]],
    found: Sequence[_Position],
    boxes: tuple[list[Span], list[Span]],
    shape: tuple[int, int],
    like: NDArray[Any],
) -> NDArray[Any]:
    """Return the boxes of some positions, (filters, ranks, h, w, channels).

    wholes: an array (h, w, channels) for each position. shape: filters and ranks. like: an array
    of their dtype and channels.
    """
    sides = (spans[0].stop - spans[0].start for spans in boxes)
    cropped = np.zeros((*shape, *sides, like.shape[-1]), like.dtype)
    for position, whole in zip(found, wholes, strict=True):
        target = cropped[position.filter, position.rank - 1]
        _crop(whole, boxes[0][position.y], boxes[1][position.x], target)
    return cropped


def _crop(image: NDArray[Any], box_y: Span, box_x: Span, target: NDArray[Any]) -> None:
    """Copy a box of an image into the target; what lies outside of the image stays 0."""
    height, width = image.shape[:2]
    top, bottom = max(box_y.start, 0), min(box_y.stop, height)
    left, right = max(box_x.start, 0), min(box_x.stop, width)
    target[top - box_y.start : bottom - box_y.start, left - box_x.start : right - box_x.start] = (
        image[top:bottom, left:right]
    )


def _box_columns(box_y: Span, box_x: Span) -> dict[str, int]:
    return {
        "y0": box_y.start,
        "x0": box_x.start,
        "y1": box_y.stop,
        "x1": box_x.stop,
        "clipped_y0": box_y.clipped_start,
        "clipped_x0": box_x.clipped_start,
        "clipped_y1": box_y.clipped_stop,
        "clipped_x1": box_x.clipped_stop,
    }


def _rule(settings: MiningConfig, n_filters: int) -> MiningOptions:
    searched = np.ones(n_filters, bool)
    if settings.filters:
        searched[:] = False
        searched[list(settings.filters)] = True
    return MiningOptions(
        settings.patches_per_filter,
        searched,
        -np.inf if settings.lowest else 0.0,
        settings.one_per_image,
        settings.suppression_radius,
    )
