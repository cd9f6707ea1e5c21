"""Read and write the parquet tables, each with its declared schema."""

import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from cnn.errors import ArtifactError
from cnn.tables.schemas import SCHEMA_VERSION, SCHEMAS

log = logging.getLogger(__name__)


def write(path: Path, name: str, columns: Mapping[str, Any]) -> None:
    """Write the table `name` from its columns except schema_version, all of the same length."""
    length = len(next(iter(columns.values())))
    versions = {"schema_version": [SCHEMA_VERSION] * length}
    pq.write_table(pa.table({**versions, **columns}, schema=SCHEMAS[name]), path)


def write_rows(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table `name` from rows, each without schema_version."""
    columns = SCHEMAS[name].names[1:]
    write(path, name, {column: [row[column] for row in rows] for column in columns})


def write_records(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table `name` from rows of plain values, without importing pandas.

    When given Python lists, pyarrow imports pandas, which takes half a second.
    """
    lines = [json.dumps({"schema_version": SCHEMA_VERSION, **row}, default=str) for row in rows]
    options = pa_json.ParseOptions(explicit_schema=SCHEMAS[name], unexpected_field_behavior="error")
    source = io.BytesIO("\n".join(lines).encode())
    table = pa_json.read_json(source, parse_options=options) if rows else None
    pq.write_table(table.cast(SCHEMAS[name]) if table else SCHEMAS[name].empty_table(), path)


def read(path: Path) -> pa.Table:
    """Return a whole table; raises ArtifactError if the file is not a complete parquet file."""
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path}: not a complete parquet file ({reason})") from None


def read_all(paths: Iterable[Path], name: str) -> pa.Table:
    """Return the rows of many files of the table `name` as one table.

    Damaged files and files of other tables are skipped; one warning names them.
    """
    tables, faults = [SCHEMAS[name].empty_table()], []
    for path in paths:
        try:
            table = read(path)
            if not table.schema.equals(SCHEMAS[name]):
                raise ArtifactError(f"{path}: not a `{name}` table of version {SCHEMA_VERSION}")
            tables.append(table)
        except ArtifactError as error:
            faults.append(str(error))
    if faults:
        log.warning("%s; skipped", "; ".join(faults))
    return pa.concat_tables(tables)
