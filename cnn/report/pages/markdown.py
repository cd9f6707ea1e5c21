"""Markdown in which text from data stays text."""

import html
import re
from collections.abc import Mapping, Sequence

_MARKS = re.compile(r"[\\`*_{}\[\]()#+.!|~<>&\"':-]")
# What a renderer makes a link of although no mark is left in it.
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
_JOINER = "\N{WORD JOINER}"  # cannot be seen


def escaped(text: object) -> str:
    """Return a text such that neither markdown nor HTML sees more than letters in it.

    Addresses are broken by a letter that cannot be seen: they would become links.
    """
    line = _ADDRESS.sub(_JOINER, " ".join(str(text).split()))
    return _MARKS.sub(lambda found: _harmless(found[0]), line)


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows with the same columns as a table; every cell is escaped."""
    lines = [list(rows[0]), ["---"] * len(rows[0])] if rows else []
    head = [" | ".join(line) for line in lines]
    body = [" | ".join(escaped(cell) for cell in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in (*head, *body))


def link(text: str, address: str) -> str:
    """Return a link; the text, which Prefect's UI does not read as markdown, is escaped."""
    words = html.escape(text).replace("[", "&#91;").replace("]", "&#93;")
    return f"[{words}](<{address}>)"


def image(name: str, address: str) -> str:
    """Return a picture; the name is escaped."""
    return f"![{escaped(name)}]({address})"


def _harmless(mark: str) -> str:
    """Return a mark as HTML's name for it, or behind a backslash.

    Prefect's UI shows the names of quotes as they are written.
    """
    named = html.escape(mark, quote=False)
    return f"\\{mark}" if named == mark else named
