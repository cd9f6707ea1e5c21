"""Text from data stays text in markdown."""

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
    """Return the text of a paragraph; anything else than text in it fails."""
    found = tokens(text)
    kinds = {token.type for token in found}
    text_kinds = {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}
    assert kinds <= text_kinds, kinds - text_kinds
    words = "".join(token.content for token in found if token.type.startswith("text"))
    return words.replace(JOINER, "")


@given(TEXTS)
@example(hostile.NOTE)
@example("&#x27; &lt; - 1. a\\")
def test_an_escaped_text_is_shown_as_it_is(text: str) -> None:
    """No element comes from it, and every letter is there; only white space is one space."""
    line = " ".join(text.replace(JOINER, "").split())
    assert shown(f"x {markdown.escaped(line)} x") == f"x {line} x"


@pytest.mark.parametrize("name", hostile.CLASSES)
def test_a_hostile_name_begins_nothing(name: str) -> None:
    """At the beginning of a paragraph too."""
    assert shown(markdown.escaped(name)) == name


@pytest.mark.parametrize("text", ["http://evil.example", "WWW.evil.example", "a@evil.example"])
def test_an_address_is_no_link_where_bare_ones_are(text: str) -> None:
    """Prefect's UI makes links of whatever reads like an address, once the marks are gone."""
    plain = unescape(markdown.escaped(text)).replace("\\", "")
    assert "://" not in plain
    assert "www." not in plain.lower()
    assert "a@" not in plain


def test_a_quote_is_written_as_one() -> None:
    """Prefect's UI would show its HTML name."""
    assert "#" not in markdown.escaped("'\"")


def test_a_table_keeps_its_columns_whatever_is_in_it() -> None:
    """A bar in a cell begins no other cell."""
    rows = [{"name": name, "n": 1} for name in hostile.CLASSES]
    cells = [token.type for token in tokens(markdown.table(rows))].count("td_open")
    assert cells == 2 * len(rows)
