"""Figures of data, training and evaluation, each drawn from tables and arrays."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cnn.data.dataset import Split
from cnn.report.figures import contact_sheet, theme
from cnn.report.figures.contact_sheet import Sheet, Tile

N_SAMPLES = 16
_MOST_NAMED_CLASSES, _MOST_COUNTED_CLASSES = 30, 20
_CONFUSION_HEIGHT = 980  # pixels
_NARROW_NAME, _WIDEST_NAME = 40, 240  # pixels beside the confusion matrix


def samples(train: Split, class_names: tuple[str, ...]) -> Figure:
    """Return a figure of 16 training images, evenly spaced through the split, with their labels."""
    chosen = np.unique(np.linspace(0, len(train) - 1, N_SAMPLES).astype(int))
    tiles = [
        Tile(
            contact_sheet.rgb(train.images[i]),
            [theme.class_label(class_names[train.labels[i]], train.labels[i]), f"#{train.ids[i]}"],
        )
        for i in chosen
    ]
    note = f"{len(chosen)} of {len(train):,}, evenly spaced; below each: label and image id"
    return Sheet("Training images", note, contact_sheet.grid(tiles, 8)).draw()


def history(table: pd.DataFrame, batches: str = "training batches") -> Figure:
    """Return a figure of accuracy, loss and learning rate over the steps.

    batches: what the legend calls the training batches.
    """
    figure = theme.figure(1000)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])
    for split, rows in table[table["status"] == "ok"].groupby("split", sort=True):
        name = batches if split == "train" else f"{split} images"
        style = {"color": theme.SPLIT_COLOURS[str(split)], "marker": "o", "markersize": 4}
        top.plot(rows["step"], rows["accuracy"], label=name, **style)
        middle.plot(rows["step"], rows["loss"], label=name, **style)
        if split == "train":
            bottom.plot(rows["step"], rows["learning_rate"], **style)
    theme.style(top, "Accuracy", "", "share of images correct")
    theme.style(middle, "Loss", "", "mean cross-entropy (nats)")
    theme.style(bottom, "Learning rate", "step", "")
    top.set_ylim(*_accuracy_limits(table))
    top.yaxis.set_major_formatter(PercentFormatter(1))
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    if (table["loss"] > 0).any():
        theme.log_scale(middle, (1, 2, 5))
    top.legend(loc="best", fontsize=theme.TEXT, frameon=False)
    figure.tight_layout(h_pad=2)
    return figure


def _accuracy_limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of the accuracy axis, which show the last value of every split.

    The weaker split sets the scale. A poor start may lie below the axis.
    """
    worst, best = float(table["accuracy"].min()), float(table["accuracy"].max())
    weaker = float(table.groupby("split")["accuracy"].last().min())
    lowest = min(max(worst, 1 - 8 * (1 - weaker)), weaker, best - 0.01)
    margin = 0.06 * (best - lowest)
    return lowest - margin, best + margin


def confusion(table: pd.DataFrame, split: str) -> Figure:
    """Return a figure of a split's confusion matrix: mistakes coloured, the diagonal grey."""
    rows = table[table["split"] == split]
    counts = rows.pivot(index="label", columns="prediction", values="count").to_numpy()
    named: dict[int, str] = dict(zip(rows["label"], rows["label_name"], strict=True))
    names = [theme.class_label(named[label], label) for label in sorted(named)]
    names = [theme.fitted(name, _WIDEST_NAME, theme.TEXT) for name in names]
    room = max(theme.text_width(name, theme.TEXT) for name in names) - _NARROW_NAME
    room = max(0, room) if len(names) <= _MOST_NAMED_CLASSES else 0
    mistakes = counts * (1 - np.eye(len(counts), dtype=int))
    figure = theme.figure(_CONFUSION_HEIGHT)
    right, up = room / theme.WIDTH, room / _CONFUSION_HEIGHT
    axes = figure.add_axes((0.1 + right, 0.09 + up, 0.76 - right, 0.81 - up))
    shown = axes.imshow(
        np.ma.masked_array(mistakes, np.eye(len(counts), dtype=bool)),
        cmap="Reds",
        vmin=0,
        vmax=max(1, int(mistakes.max())),
    )
    axes.set_facecolor(theme.GRID)
    title = f"Confusion matrix: {counts.sum():,} {split} images, {mistakes.sum():,} mistakes"
    theme.style(axes, title, "prediction", "label")
    axes.grid(visible=False)
    if len(names) <= _MOST_NAMED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90 if _are_long(names) else 0)
        axes.set_yticks(range(len(names)), names)
        for tick in (*axes.xaxis.get_major_ticks(), *axes.yaxis.get_major_ticks()):
            tick.label1.set_parse_math(False)
            tick.label2.set_parse_math(False)
    if len(names) <= _MOST_COUNTED_CLASSES:
        _write_counts(axes, counts, mistakes)
    bar = figure.colorbar(shown, cax=figure.add_axes((0.89, 0.09, 0.025, 0.81)))
    bar.set_label("mistakes (images)", fontsize=theme.TEXT, color=theme.INK)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar.ax.tick_params(labelsize=theme.TEXT)
    return figure


def _are_long(names: list[str]) -> bool:
    return max(len(name) for name in names) > 4


def _write_counts(axes: Any, counts: NDArray[np.int64], mistakes: NDArray[np.int64]) -> None:
    for (label, prediction), count in np.ndenumerate(counts):
        if count:
            dark = label != prediction and count > 0.6 * mistakes.max()
            axes.text(
                prediction,
                label,
                f"{count:,}",
                ha="center",
                va="center",
                fontsize=theme.TEXT,
                color="white" if dark else theme.INK,
            )


def calibration(table: pd.DataFrame, split: str) -> Figure:
    """Return a figure of accuracy against predicted probability, with the size of each bin."""
    rows = table[(table["split"] == split) & (table["n"] > 0)]
    figure = theme.figure(860)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=theme.FAINT, linestyle="--", label="perfectly calibrated")
    spread = [rows["accuracy"] - rows["ci_low"], rows["ci_high"] - rows["accuracy"]]
    top.errorbar(
        rows["mean_probability"],
        rows["accuracy"],
        spread,
        color=theme.BLUE,
        marker="o",
        elinewidth=1,
        capsize=3,
        label=f"{split} images per bin, with 95 % intervals",
    )
    width = float((rows["probability_high"] - rows["probability_low"]).iloc[0])
    bottom.bar(rows["probability_low"], rows["n"], width, align="edge", color=theme.BLUE)
    theme.style(top, "Calibration", "", "share of images correct")
    theme.style(bottom, "", "probability of the predicted class", "images")
    theme.log_scale(bottom, (1,))
    bottom.set_ylim(bottom=0.7)
    bottom.set_xlim(0, 1.01)
    top.set_ylim(-0.02, 1.04)
    top.yaxis.set_major_formatter(PercentFormatter(1))
    bottom.xaxis.set_major_formatter(PercentFormatter(1))
    top.legend(loc="upper left", fontsize=theme.TEXT, frameon=False)
    figure.tight_layout()
    return figure


def mistakes(predictions: pd.DataFrame, test: Split, n_shown: int) -> Figure:
    """Return a figure of the misclassified test images with the highest loss, worst first."""
    wrong = predictions[
        (predictions["split"] == "test") & (predictions["label"] != predictions["prediction"])
    ]
    worst = wrong.sort_values(["loss", "image_id"], ascending=[False, True]).head(n_shown)
    position: dict[Any, int] = {int(image_id): i for i, image_id in enumerate(test.ids)}
    tiles = [
        Tile(
            contact_sheet.rgb(test.images[position[row.image_id]]),
            [*_class_lines(row), f"{row.probability:.1%}  #{row.image_id}"],
        )
        for row in worst.itertuples()
    ]
    note = (
        f"{len(wrong):,} of {len(test):,} test images are misclassified; the {len(worst)} with the "
        "highest loss; below each: label, prediction, its probability, image id"
        if tiles
        else f"none: all {len(test):,} test images are classified correctly"
    )
    return Sheet("Worst mistakes", note, contact_sheet.grid(tiles, 6) or [[None]]).draw()


def _class_lines(row: Any) -> list[str]:
    """Return an image's label and prediction as text, in two lines if the names are long."""
    label = theme.class_label(row.label_name, row.label)
    prediction = theme.class_label(row.prediction_name, row.prediction)
    if _are_long([label, prediction]):
        return [f"is {label}", f"predicted {prediction}"]
    return [f"is {label}, predicted {prediction}"]
