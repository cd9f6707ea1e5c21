"""Figures at the width at which Prefect's UI shows them."""

import io
from collections.abc import Iterator, Mapping

from PIL import Image

from cnn.report.pages import html, markdown

WIDTH = 600  # pixels
_ROOM = 1_450_000  # characters of a page's pictures; Prefect publishes no event of 1,500,000
_COLOURS = 128  # twice as many take a fifth more room, and look the same
_MANY_COLOURS = 1 << 16  # photographs have more; to choose the best few takes seconds there


def fitting(pngs: Mapping[str, bytes], elsewhere: str) -> Iterator[str]:
    """Yield figures in markdown, small, while a page has room; say `elsewhere` for the others.

    pngs: by their names.
    """
    room = _ROOM
    for name, png in pngs.items():
        shown = markdown.image(name, small(png))
        if len(shown) > room:
            yield markdown.escaped(f"the picture {name} is too large for this page; {elsewhere}")
        else:
            room -= len(shown)
            yield shown


def small(png: bytes) -> str:
    """Return a figure's PNG as an address of its small copy that needs no network."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    resized = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    is_photo = resized.getcolors(_MANY_COLOURS) is None
    method = Image.Quantize.FASTOCTREE if is_photo else Image.Quantize.MAXCOVERAGE
    palette = resized.quantize(_COLOURS, method=method, dither=Image.Dither.NONE)
    palette.save(stream, "PNG")
    return html.data_uri(stream.getvalue())
