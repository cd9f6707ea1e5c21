"""Mine and describe the image patches that most activate each filter (step mine_patches)."""

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

PIXELS = "patches"  # the view that holds the pixels themselves


@dataclass(frozen=True)
class Patches:
    """The patches mined for one layer: one row per patch, and arrays by view name.

    rows: of the table `patches`, ranks from 1. views: `patches` holds the image's pixels, 0..255,
    (filters, k, h, w, channels); it is 0 outside the image and for ranks without a patch. The
    other views (cnn.explain.views) are float32 and cover the first MAX_RANKS ranks; the lowest
    activations have none.
    """

    layer: str
    rows: list[dict[str, Any]]
    views: dict[str, NDArray[Any]]

    @property
    def pixels(self) -> NDArray[Any]:
        """The view `patches`."""
        return self.views[PIXELS]


def check(model: Model, split: Split, settings: MiningConfig, section: str = "") -> None:
    """Raise an error, before anything is computed, if a layer cannot be mined.

    section: prefix of the settings that messages name, with its dot ("explain.").

    Raises ConfigError if the layer does not exist, if a view is not defined for it (the lowest
    activations need none), if the images do not have the model's input size, if the split has no
    images or fewer positions than patches to keep, or if a filter does not exist. Raises
    ArtifactError if weights are not finite.
    """
    weight_checks.refuse_damaged(model)
    layer = settings.layer
    shape = receptive_field.chain(model, layer)[-1].output.shape[1:]
    for view in () if settings.lowest else VIEWS:
        view.refuse(model, layer)
    expected, found = tuple(model.inputs[0].shape[1:]), tuple(split.images.shape[1:])
    if found != expected:
        raise ConfigError(
            f"images of {size_words(found)} pixels are refused; "
            f"the model reads {size_words(expected)}"
        )
    _refuse_too_many(settings, layer, len(split), (shape[0], shape[1]), section)
    if settings.filters and max(settings.filters) >= shape[-1]:
        raise ConfigError(
            f"filters: {max(settings.filters)} is refused; {layer} has filters 0 to {shape[-1] - 1}"
        )


def _refuse_too_many(
    settings: ExplainConfig, layer: str, n_images: int, sides: tuple[int, int], section: str
) -> None:
    """Raise ConfigError if the split has no images, or fewer positions than patches to keep.

    sides: height and width of the layer's feature maps. section: as in `check`.
    """
    if not n_images:
        raise ConfigError(
            f"{section}split: {settings.split} is refused; "
            f"this data set has no {settings.split} images"
        )
    k = settings.patches_per_filter
    n_positions = n_images * (1 if settings.one_per_image else sides[0] * sides[1])
    if k > n_positions:
        raise ConfigError(
            f"{section}patches_per_filter: {k:,} is refused; a filter of {layer} has "
            f"{n_positions:,} positions in the {n_images:,} {settings.split} images"
        )


def refuse_unfit(model: Model, dataset: Dataset, settings: ExplainConfig) -> None:
    """Raise, before training, if the model could not be mined with these settings; see `check`."""
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

    A filter has fewer than k where fewer positions fire, and none if it never fires.
    predicted_names: the model's class names, which may differ from the data set's. Raises as
    `check` does.
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
    """Return the top-k positions of every filter over the images from `start` on.

    forward: of the settings' layer, negated to mine the lowest activations. images: (n, h, w, c),
    pixels 0..255. start: a multiple of forward.n_at_once. report: called after each batch with
    the index one past its last image.
    """

    def batches() -> Iterator[Batch]:
        for batch in forward.stream(images, start):
            yield batch
            report(batch.stop)

    return mining.mine(batches(), _options(settings, forward.n_filters))


def describe(
    model: Model,
    dataset: Dataset,
    settings: MiningConfig,
    best: TopK,
    predicted_names: Sequence[str],
) -> Patches:
    """Return the rows and the views of mined positions.

    predicted_names: the model's class names, which may differ from the data set's.
    """
    layer, split = settings.layer, dataset.splits[settings.split]
    boxes = _boxes(model, layer)
    positions = _positions(best, (len(boxes[0]), len(boxes[1])), settings.lowest)
    predicted = _predicted(model, split.images, [position.image for position in positions])
    rows = []
    for position in positions:
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
    pixels = (split.images[position.image] for position in positions)
    views = {PIXELS: _cropped(pixels, positions, boxes, shape, split.images)}
    viewed = [position for position in positions if position.rank <= MAX_RANKS]
    shape = (n_filters, min(settings.patches_per_filter, MAX_RANKS))
    for view in () if settings.lowest else VIEWS:
        computed = _computed(view, model, layer, split.images, viewed)
        views[view.name] = _cropped(computed, viewed, boxes, shape, computed)
    return Patches(layer, rows, views)


def write(folder: Path, mined: Sequence[Patches]) -> int:
    """Write one array per layer and view, and one table of all patches; return their number."""
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
    """Return the pixels seen by each row, and by each column, of a layer's feature map."""
    along_y, along_x = receptive_field.windows(model, layer)
    _, height, width, _ = model.get_layer(layer).output.shape
    return (
        [receptive_field.span(along_y, y) for y in range(height)],
        [receptive_field.span(along_x, x) for x in range(width)],
    )


def _predicted(model: Model, images: NDArray[Any], chosen: Iterable[int]) -> dict[int, int]:
    """Return the predicted class of each chosen image, keyed by image index."""
    indices = np.unique(np.fromiter(chosen, np.int64))
    classes = activations.predict(model, images[indices])
    return dict(zip(indices.tolist(), classes.tolist(), strict=True))


def _computed(
    view: View, model: Model, layer: str, images: NDArray[Any], positions: Sequence[_Position]
) -> NDArray[np.float32]:
    """Return the view of each position in its image's pixel space, (n, h, w, channels)."""
    indices = np.unique(np.array([position.image for position in positions], np.int64))
    units = [
        Unit(int(np.searchsorted(indices, p.image)), p.y, p.x, p.filter, p.activation)
        for p in positions
    ]
    return view.compute(model, layer, images[indices], units)


def _cropped(
    wholes: Iterable[NDArray[Any]],
    positions: Sequence[_Position],
    boxes: tuple[list[Span], list[Span]],
    shape: tuple[int, int],
    like: NDArray[Any],
) -> NDArray[Any]:
    """Crop the box of each position, (filters, ranks, h, w, channels); 0 where there is none.

    wholes: one array (h, w, channels) per position. shape: (filters, ranks). like: an array with
    the dtype and channels of the wholes.
    """
    sides = (spans[0].stop - spans[0].start for spans in boxes)
    cropped = np.zeros((*shape, *sides, like.shape[-1]), like.dtype)
    for position, whole in zip(positions, wholes, strict=True):
        target = cropped[position.filter, position.rank - 1]
        _crop(whole, boxes[0][position.y], boxes[1][position.x], target)
    return cropped


def _crop(image: NDArray[Any], box_y: Span, box_x: Span, target: NDArray[Any]) -> None:
    """Copy a box of an image into the target; pixels outside the image stay 0."""
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


def _options(settings: MiningConfig, n_filters: int) -> MiningOptions:
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
