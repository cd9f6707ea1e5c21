"""Figures at the width at which Prefect's UI shows them."""

import io
from collections.abc import Iterator, Mapping

from PIL import Image

from cnn.report.pages import html, markdown

WIDTH = 600  # pixels
_ROOM = 1_450_000  # characters of a page's figures; Prefect publishes no event of 1,500,000
_COLOURS = 128  # 256 take a fifth more room and look the same
_MANY_COLOURS = 1 << 16  # photographs have more; choosing the best palette takes seconds there


def fitting(pngs: Mapping[str, bytes], elsewhere: str) -> Iterator[str]:
    """Yield small copies of figures in markdown as long as the page has room.

    pngs: the figures by name. elsewhere: where to find a figure that does not fit, for the line
    that stands in for it.
    """
    room = _ROOM
    for name, png in pngs.items():
        shown = markdown.image(name, small(png))
        if len(shown) > room:
            yield markdown.escaped(f"figure {name} is too large for this page; see {elsewhere}")
        else:
            room -= len(shown)
            yield shown


def small(png: bytes) -> str:
    """Return a small copy of a figure's PNG as a data URI."""
    figure = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(figure.height * WIDTH / figure.width)
    resized = figure.resize((WIDTH, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    is_photo = resized.getcolors(_MANY_COLOURS) is None
    method = Image.Quantize.FASTOCTREE if is_photo else Image.Quantize.MAXCOVERAGE
    palette = resized.quantize(_COLOURS, method=method, dither=Image.Dither.NONE)
    palette.save(stream, "PNG")
    return html.data_uri(stream.getvalue())
