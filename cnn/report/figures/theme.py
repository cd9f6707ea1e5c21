"""The common look of all figures: width, fonts and colours, without matplotlib's global state."""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

WIDTH = 1040  # pixels; text of 15 pixels stays readable where a page shows 600
DPI = 100
TEXT, SMALL, TITLE = 11.5, 10.5, 14.0  # points
INK, FAINT, GRID = "#1f2430", "#5b6270", "#e3e6ec"
BLUE, ORANGE, RED, GREEN = "#2563a8", "#c8641b", "#b3261e", "#2e7d4f"
SPLIT_COLOURS = {"train": BLUE, "validation": ORANGE, "test": GREEN}


def figure(height: int) -> Figure:
    """Return an empty white figure, WIDTH pixels wide and `height` pixels high."""
    empty = Figure((WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(empty)
    return empty


def style(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Set the title, labels, grid and colours of axes."""
    axes.set_title(title, fontsize=TITLE, color=INK, loc="left", pad=10)
    axes.set_xlabel(x_label, fontsize=TEXT, color=INK)
    axes.set_ylabel(y_label, fontsize=TEXT, color=INK)
    axes.tick_params(labelsize=TEXT, colors=INK)
    axes.grid(color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)


def log_scale(axes: Axes, marks: Sequence[float]) -> None:
    """Make the y axis logarithmic, with tick marks at these multiples of powers of ten.

    Tick labels are plain numbers, because matplotlib's math parser is not thread-safe.
    """
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=marks))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path | IO[bytes]) -> None:
    """Write a figure as PNG, the same bytes for the same figure."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    opaque = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    Image.fromarray(opaque).save(path, "PNG", dpi=(DPI, DPI))


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    stream = BytesIO()
    save(figure, stream)
    return stream.getvalue()


def can_draw(text: str) -> bool:
    """Return whether the font of the figures has every character of a text."""
    return all(_advance(letter, TEXT) is not None for letter in text)


def class_label(name: str, label: int) -> str:
    """Return a class's name for a figure, or its number if the font lacks a character of it."""
    return name if can_draw(name) else f"class {label}"


def text_width(text: str, points: float) -> float:
    """Return the width of a line of text in pixels, without the characters that the font lacks."""
    return sum(_advance(letter, points) or 0.0 for letter in text)


@lru_cache(maxsize=4096)  # class names appear below thousands of images
def wrapped(text: str, room: float, points: float, most: int) -> tuple[str, ...]:
    """Return a text in at most `most` lines of at most `room` pixels, the last one shortened."""
    lines: list[str] = []
    while len(lines) < most - 1 and text_width(text, points) > room:
        n_fitting = sum(text_width(text[: n + 1], points) <= room for n in range(len(text)))
        n = _end_of_line(text, n_fitting)
        lines.append(text[:n])
        text = text[n:].lstrip()
    return (*lines, fitted(text, room, points))


def _end_of_line(text: str, n_fitting: int) -> int:
    """Return where to break a text: at a space, else after / - or _, else anywhere."""
    space = text.rfind(" ", 0, n_fitting + 1)
    mark = 1 + max(text.rfind(mark, 0, n_fitting) for mark in "/-_")
    return space if space > 0 else mark or max(1, n_fitting)


def fitted(text: str, room: float, points: float) -> str:
    """Return a text no wider than `room` pixels, shortened in the middle if it is longer."""
    if text_width(text, points) <= room:
        return text
    for n_kept in range(len(text) - 1, 1, -1):
        n_first = (n_kept + 1) // 2
        shorter = f"{text[:n_first].rstrip()}…{text[len(text) - n_kept + n_first :].lstrip()}"
        if text_width(shorter, points) <= room:
            return shorter
    return text[:1]


@lru_cache(maxsize=4096)
def _advance(letter: str, points: float) -> float | None:
    """Return a letter's width in pixels in matplotlib's default font, None if it lacks it."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    font.set_size(points, DPI)
    if not font.get_char_index(ord(letter)):
        return None
    return float(font.load_char(ord(letter)).linearHoriAdvance) / 65536
