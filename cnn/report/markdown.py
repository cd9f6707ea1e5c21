"""Markdown in which text from data stays text."""

import html
import re
from collections.abc import Mapping, Sequence

_MARKS = re.compile(r"([\\`*_{}\[\]()#+.!|~<>-])")


def escaped(text: object) -> str:
    """Return a text such that neither markdown nor HTML sees more than letters in it."""
    line = " ".join(str(text).split())
    return html.escape(_MARKS.sub(r"\\\1", line), quote=True).replace("\\&", "&")


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows with the same columns as a table; every cell is escaped."""
    lines = [list(rows[0]), ["---"] * len(rows[0])] if rows else []
    head = [" | ".join(line) for line in lines]
    body = [" | ".join(escaped(cell) for cell in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in (*head, *body))


def link(text: str, address: str) -> str:
    """Return a link; the text is escaped."""
    return f"[{escaped(text)}](<{address}>)"


def image(name: str, address: str) -> str:
    """Return a picture; the name is escaped."""
    return f"![{escaped(name)}]({address})"
