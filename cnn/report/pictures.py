"""Figures at the width at which Prefect's UI shows them."""

import io

from PIL import Image

from cnn.report import html

WIDTH = 600  # pixels


def small(png: bytes) -> str:
    """Return a figure's PNG as an address of its small copy that needs no network."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    resized = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    palette = resized.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(stream, "PNG", optimize=True)
    return html.data_uri(stream.getvalue())
