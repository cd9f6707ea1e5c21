"""Write markdown in which text from data stays plain text."""

import html
import re
from collections.abc import Mapping, Sequence

_MARKS = re.compile(r"[\\`*_{}\[\]()#+.!|~<>&\"':-]")
# Text that a renderer turns into a link even after all marks are escaped.
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
_JOINER = "\N{WORD JOINER}"  # invisible


def escaped(text: object) -> str:
    """Return a text escaped so that markdown and HTML show it literally.

    An invisible character breaks up addresses, which would otherwise become links.
    """
    line = _ADDRESS.sub(_JOINER, " ".join(str(text).split()))
    return _MARKS.sub(lambda found: _harmless(found[0]), line)


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows with the same columns as a markdown table; every cell is escaped."""
    lines = [list(rows[0]), ["---"] * len(rows[0])] if rows else []
    head = [" | ".join(line) for line in lines]
    body = [" | ".join(escaped(cell) for cell in row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in (*head, *body))


def link(text: str, address: str) -> str:
    """Return a link; its text is escaped for HTML only, as Prefect's UI shows it literally."""
    words = html.escape(text).replace("[", "&#91;").replace("]", "&#93;")
    return f"[{words}](<{address}>)"


def image(name: str, address: str) -> str:
    """Return an image; its name is escaped."""
    return f"![{escaped(name)}]({address})"


def _harmless(mark: str) -> str:
    """Return a mark as its HTML entity, or after a backslash.

    Quotes take the backslash, because Prefect's UI shows their entities literally.
    """
    named = html.escape(mark, quote=False)
    return f"\\{mark}" if named == mark else named
