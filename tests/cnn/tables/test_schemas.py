"""The schemas: what a key takes of them, and what is said of each column."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnn.tables import parquet, schemas
from tests import ROOT


def test_the_digest_follows_schema_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose table changes its columns or their meaning has another key."""
    digests = {schemas.digest(name) for name in schemas.SCHEMAS}
    assert len(digests) == len(schemas.SCHEMAS)
    before = schemas.digest("metrics")
    monkeypatch.setattr(schemas, "SCHEMA_VERSION", schemas.SCHEMA_VERSION + 1)
    bumped = schemas.digest("metrics")
    monkeypatch.undo()
    more = schemas.SCHEMAS["metrics"].append(pa.field("unit", pa.string()))
    monkeypatch.setitem(schemas.SCHEMAS, "metrics", more)
    assert len({before, bumped, schemas.digest("metrics")}) == 3
    described = schemas.SCHEMAS["confusion"].field(1).with_metadata({"description": "other words"})
    before = schemas.digest("confusion")
    changed = schemas.SCHEMAS["confusion"].set(1, described)
    monkeypatch.setitem(schemas.SCHEMAS, "confusion", changed)
    assert schemas.digest("confusion") == before


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_a_file_says_what_its_columns_are(tmp_path: Path, name: str) -> None:
    """Whoever has only the file learns it from the schema, written by columns or as records."""
    empty = {column: [] for column in schemas.SCHEMAS[name].names[1:]}
    parquet.write(tmp_path / "columns.parquet", name, empty)
    parquet.write_records(tmp_path / "records.parquet", name, [])
    for path in tmp_path.glob("*.parquet"):
        assert all(field.metadata[b"description"] for field in pq.read_schema(path))


def test_the_page_of_the_tables_is_made_from_the_schemas() -> None:
    """docs/tables.md has what `python -m cnn.tables.schemas docs/tables.md` writes."""
    page = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
    assert schemas.documented(page) == page
    headings = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert headings[: len(schemas.SCHEMAS)] == list(schemas.SCHEMAS)
