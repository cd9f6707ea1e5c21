"""Helpers of the HTML pages: templates, number formats, images as data URIs."""

import base64
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from cnn.formatting import number, percent, seconds

BODY_NAME, PICTURES_NAME = "body.html", "pictures.md"  # files of the report artifact
_FOLDER = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Return a template of this folder with the values filled in; all text is escaped."""
    return _environment().get_template(template).render(**values)


def data_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, percent=percent, seconds=seconds)
    return environment
