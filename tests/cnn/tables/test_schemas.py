"""The schemas: what keys take from them, and the descriptions of their columns."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnn.tables import parquet, schemas
from tests import ROOT


def test_a_digest_depends_on_columns_and_version_and_not_on_descriptions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step whose table changes has another key; a better description changes no key."""
    digests = {schemas.digest(name) for name in schemas.SCHEMAS}
    assert len(digests) == len(schemas.SCHEMAS)
    metrics = schemas.SCHEMAS["metrics"]
    described = metrics.field(1).with_metadata({"description": "other words"})
    monkeypatch.setitem(schemas.SCHEMAS, "metrics", metrics.set(1, described))
    assert schemas.digest("metrics") in digests
    monkeypatch.setitem(schemas.SCHEMAS, "metrics", metrics.append(pa.field("unit", pa.string())))
    assert schemas.digest("metrics") not in digests
    monkeypatch.setattr(schemas, "SCHEMA_VERSION", schemas.SCHEMA_VERSION + 1)
    assert schemas.digest("confusion") not in digests


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_a_file_describes_its_columns(tmp_path: Path, name: str) -> None:
    """The descriptions are in the schema of the file, however it was written."""
    empty = {column: [] for column in schemas.SCHEMAS[name].names[1:]}
    parquet.write(tmp_path / "columns.parquet", name, empty)
    parquet.write_records(tmp_path / "records.parquet", name, [])
    for path in tmp_path.glob("*.parquet"):
        assert all(field.metadata[b"description"] for field in pq.read_schema(path))


def test_docs_describe_the_columns_of_every_table() -> None:
    """docs/tables.md has what `python -m cnn.tables.schemas docs/tables.md` writes."""
    page = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
    assert schemas.documented(page) == page
    headings = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert headings[: len(schemas.SCHEMAS)] == list(schemas.SCHEMAS)


def test_the_readme_lists_every_table_once() -> None:
    """The list is the table in README.md that is headed `table | one row is`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"^\| table \| one row is \|\n(.*?)\n\n", readme, re.M | re.S)
    listed = re.findall(r"^\| `([\w/.]+)` \|", rows, re.M)
    assert sorted(listed) == sorted({*schemas.SCHEMAS, "runs/index.parquet"} - {"runs"})
