"""Text from data stays plain text in markdown."""

from html import unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from cnn.report.pages import markdown
from tests.services import hostile

RENDERER = MarkdownIt("commonmark").enable("table")
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")))
JOINER = "\N{WORD JOINER}"


def tokens(text: str) -> list[Token]:
    return [item for token in RENDERER.parse(text) for item in (token, *(token.children or ()))]


def shown(text: str) -> str:
    """Return the text of a paragraph, which must not contain anything else."""
    found = tokens(text)
    kinds = {token.type for token in found}
    text_kinds = {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}
    assert kinds <= text_kinds, kinds - text_kinds
    words = "".join(token.content for token in found if token.type.startswith("text"))
    return words.replace(JOINER, "")


@given(TEXTS)
@example(hostile.NOTE)
@example("&#x27; &lt; - 1. a\\")
def test_an_escaped_text_is_shown_literally(text: str) -> None:
    """Every character is there, apart from repeated white space."""
    line = " ".join(text.replace(JOINER, "").split())
    assert shown(f"x {markdown.escaped(line)} x") == f"x {line} x"


@pytest.mark.parametrize("name", hostile.CLASSES)
def test_a_hostile_name_is_text_at_the_start_of_a_paragraph(name: str) -> None:
    """Where a mark could begin a heading or a list."""
    assert shown(markdown.escaped(name)) == name


@pytest.mark.parametrize("text", ["http://evil.example", "WWW.evil.example", "a@evil.example"])
def test_an_address_does_not_become_a_link(text: str) -> None:
    """Prefect's UI links anything that looks like an address once the marks are gone."""
    plain = unescape(markdown.escaped(text)).replace("\\", "")
    assert not [mark for mark in ("://", "www.", "a@") if mark in plain.lower()]


def test_a_quote_is_not_written_as_an_entity() -> None:
    """Prefect's UI would show the entity."""
    assert "#" not in markdown.escaped("'\"")


def test_a_table_keeps_its_columns() -> None:
    """A bar in a cell does not start another cell."""
    rows = [{"name": name, "n": 1} for name in hostile.CLASSES]
    cells = [token.type for token in tokens(markdown.table(rows))].count("td_open")
    assert cells == 2 * len(rows)
