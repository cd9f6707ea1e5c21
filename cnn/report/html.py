"""Small helpers of the HTML pages: templates, numbers in words, pictures as data URIs."""

import base64
import math
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

BODY_NAME, PICTURES_NAME = "body.html", "pictures.md"  # of a report's artifact
_FOLDER = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Return a template of this folder filled in; all text is escaped."""
    return _environment().get_template(template).render(**values)


def data_uri(png: bytes) -> str:
    """Return a PNG as an address that needs no network."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def number(value: float | None, pattern: str = ",.4g") -> str:
    """Return a number in words; "n/a" for null, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return format(value, pattern)


def percent(value: Any, digits: int = 2) -> str:
    """Return a fraction as a percentage; "n/a" for null, NaN and infinity."""
    shown = number(None if value is None else 100 * value, f".{digits}f")
    return shown if shown == "n/a" else f"{shown} %"


def seconds(value: float | None) -> str:
    """Return a duration as people say it: "0.4 s", "12 s", "3 min 20 s", or "n/a"."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, percent=percent, seconds=seconds)
    return environment
