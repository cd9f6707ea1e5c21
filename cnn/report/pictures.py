"""Figures at the width at which Prefect's UI shows them."""

import io

from PIL import Image

from cnn.report import html

WIDTH = 600  # pixels
_MANY_COLOURS = 1 << 15  # photographs have more; to choose the best few takes seconds there


def small(png: bytes) -> str:
    """Return a figure's PNG as an address of its small copy that needs no network."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    resized = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    is_photo = resized.getcolors(_MANY_COLOURS) is None
    method = Image.Quantize.FASTOCTREE if is_photo else Image.Quantize.MAXCOVERAGE
    palette = resized.quantize(method=method, dither=Image.Dither.NONE)
    palette.save(stream, "PNG")
    return html.data_uri(stream.getvalue())
