"""How every figure looks: one size, one set of colours, no global state of matplotlib."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH = 1040  # pixels; text of 15 pixels still reads where the page shows 600
DPI = 100
TEXT, SMALL, TITLE = 11.5, 10.5, 14.0  # points
INK, FAINT, GRID = "#1f2430", "#5b6270", "#e3e6ec"
BLUE, ORANGE, RED, GREEN = "#2563a8", "#c8641b", "#b3261e", "#2e7d4f"
SPLIT_COLOURS = {"train": BLUE, "validation": ORANGE, "test": GREEN}


def figure(height: int) -> Figure:
    """Return an empty white figure, WIDTH pixels wide and `height` pixels high."""
    made = Figure((WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(made)
    return made


def dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give axes their title, labels, grid and colours."""
    axes.set_title(title, fontsize=TITLE, color=INK, loc="left", pad=10)
    axes.set_xlabel(x_label, fontsize=TEXT, color=INK)
    axes.set_ylabel(y_label, fontsize=TEXT, color=INK)
    axes.tick_params(labelsize=TEXT, colors=INK)
    axes.grid(color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)


def save(made: Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure."""
    made.savefig(path, dpi=DPI, metadata={"Software": None})
