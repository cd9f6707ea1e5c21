"""The parquet tables: one schema with or without rows, the same for every reader."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnn.errors import ArtifactError
from cnn.tables import parquet, schemas

every_table = pytest.mark.parametrize("name", schemas.SCHEMAS)


def value(kind: pa.DataType, i: int) -> Any:
    """Return the i-th value of a column."""
    if pa.types.is_list(kind):
        return [value(kind.value_type, i), value(kind.value_type, i + 1)]
    for is_type, item in (
        (pa.types.is_timestamp, datetime(2026, 1, 1 + i, tzinfo=UTC)),
        (pa.types.is_string, f"text {i}"),
        (pa.types.is_boolean, i % 2 == 0),
        (pa.types.is_integer, i),
        (pa.types.is_floating, i / 4),
    ):
        if is_type(kind):
            return item
    raise AssertionError(kind)


def columns(name: str, n: int) -> dict[str, list[Any]]:
    return {
        field.name: [value(field.type, i) for i in range(n)]
        for field in schemas.SCHEMAS[name]
        if field.name != "schema_version"
    }


def put(path: Path, name: str, n: int) -> Path:
    parquet.write(path, name, columns(name, n))
    return path


def seen(path: Path) -> dict[str, tuple[list[str], int]]:
    """Return the columns and the number of rows that every reader sees."""
    frame, relation = pd.read_parquet(path), duckdb.sql(f"select * from read_parquet('{path}')")
    return {
        "pandas": (list(frame.columns), len(frame)),
        "polars": (pl.read_parquet(path).columns, pl.read_parquet(path).height),
        "duckdb": (relation.columns, len(relation.fetchall())),
    }


def types(path: Path) -> list[Any]:
    """Return the types that every reader but pandas sees."""
    relation = duckdb.sql(f"select * from read_parquet('{path}')")
    return [pq.read_schema(path), pl.read_parquet_schema(path), relation.types]


@every_table
@pytest.mark.parametrize("n", [0, 3])
def test_a_file_has_exactly_the_declared_schema(tmp_path: Path, name: str, n: int) -> None:
    """The same names, order and types with and without rows, no index column, all values."""
    path = put(tmp_path / "table.parquet", name, n)
    assert pq.read_schema(path).remove_metadata().equals(schemas.SCHEMAS[name])
    table = parquet.read(path)
    assert table.schema.names[0] == "schema_version"
    assert table.column("schema_version").to_pylist() == [schemas.SCHEMA_VERSION] * n
    for column, expected in columns(name, n).items():
        assert table.column(column).to_pylist() == expected
    assert list(seen(path).values()) == [(schemas.SCHEMAS[name].names, n)] * 3


# apache/arrow#3203, pandas-dev/pandas#51664, pola-rs/polars#7291
@every_table
def test_types_do_not_depend_on_the_rows(tmp_path: Path, name: str) -> None:
    """Every reader sees the same types without rows, with rows and with nulls alone."""
    none, some = (put(tmp_path / f"{n}.parquet", name, n) for n in (0, 3))
    nulls = tmp_path / "nulls.parquet"
    parquet.write(nulls, name, {column: [None] * 2 for column in columns(name, 0)})
    assert types(none) == types(some) == types(nulls)
    assert (pd.read_parquet(none).dtypes == pd.read_parquet(some).dtypes).all()
    for field in schemas.SCHEMAS[name]:
        assert not pa.types.is_null(field.type)
        assert not pa.types.is_dictionary(field.type)


@every_table
def test_one_glob_reads_many_runs(tmp_path: Path, name: str) -> None:
    """Files of different runs, an empty one first, are read as one table."""
    for n in (0, 3):
        put(tmp_path / f"{n}.parquet", name, n)
    glob = str(tmp_path / "*.parquet")
    assert pl.read_parquet(glob).height == 3
    assert len(duckdb.sql(f"select * from read_parquet('{glob}')").fetchall()) == 3
    assert pd.read_parquet(tmp_path).shape == (3, len(schemas.SCHEMAS[name]))


@every_table
def test_a_table_filtered_to_nothing_keeps_its_columns(tmp_path: Path, name: str) -> None:
    """A consumer may filter it with pandas and write it again."""
    frame = pd.read_parquet(put(tmp_path / "table.parquet", name, 3))
    filtered = frame[frame["schema_version"] < 0]
    parquet.write_rows(tmp_path / "again.parquet", name, filtered.to_dict("records"))
    expected = (schemas.SCHEMAS[name].names, 0)
    assert (list(filtered.columns), len(filtered)) == expected
    assert list(seen(tmp_path / "again.parquet").values()) == [expected] * 3


def test_rows_and_columns_write_the_same_bytes(tmp_path: Path) -> None:
    """A table has one file, however it is passed and whenever it is written."""
    as_columns = columns("history", 3)
    as_rows = [{name: values[i] for name, values in as_columns.items()} for i in range(3)]
    parquet.write(tmp_path / "a.parquet", "history", as_columns)
    parquet.write_rows(tmp_path / "b.parquet", "history", as_rows)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"n": [1, 2]}, {"n": ["many"]}, {"value": ["high"]}, {"split": [1]}],
    ids=["length", "text as an integer", "text as a float", "a number as text"],
)
def test_columns_that_do_not_fit_the_schema_are_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Nothing is truncated or converted to fit."""
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        parquet.write(tmp_path / "t.parquet", "metrics", {**columns("metrics", 1), **change})
    assert not (tmp_path / "t.parquet").exists()


def test_a_missing_column_is_an_error(tmp_path: Path) -> None:
    """A misspelled name does not become a column of nulls."""
    misspelled = columns("metrics", 1)
    misspelled["ci_lo"] = misspelled.pop("ci_low")
    with pytest.raises(KeyError, match="ci_low"):
        parquet.write(tmp_path / "t.parquet", "metrics", misspelled)
    row = {name: values[0] for name, values in misspelled.items()}
    with pytest.raises(KeyError, match="ci_low"):
        parquet.write_rows(tmp_path / "t.parquet", "metrics", [row])


HALF = b"PAR1" + bytes(range(256)) * 2
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "another half": lambda whole: HALF,
    "the first half": lambda whole: whole[: len(whole) // 2],
    "no end": lambda whole: whole[:-1],
    "no beginning": lambda whole: whole[4:],
    "text": lambda whole: b"<!DOCTYPE html>",
    "zeros": lambda whole: bytes(len(whole)),
    "a hole": lambda whole: whole[:-200] + bytes(100) + whole[-100:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    """The message is one line that begins with the path."""
    path = put(tmp_path / "table.parquet", "metrics", 3)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ArtifactError, match=f"^{path}: not a complete parquet file") as caught:
        parquet.read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    """They get the same message as a damaged file."""
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(ArtifactError, match=f"^{path}: not a complete parquet file"):
            parquet.read(path)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 1, 0, 2), (1, 3, 4, 2, 0)])
def test_read_all_skips_damaged_files_and_other_tables_with_one_warning(
    tmp_path: Path, order: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """All rows of the other files are read; the warning names exactly the skipped ones."""
    paths = [put(tmp_path / f"{n}.parquet", "metrics", n) for n in (3, 2, 4, 5)]
    paths.append(put(tmp_path / "history.parquet", "history", 2))
    paths[1].write_bytes(b"")
    paths[3].write_bytes(HALF)
    table = parquet.read_all([paths[i] for i in order], "metrics")
    assert table.schema.equals(schemas.SCHEMAS["metrics"])
    assert len(table) == 3 + 4
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    named = [path for path in paths if str(path) in warning.getMessage()]
    assert named == [paths[1], paths[3], paths[4]]
    assert "history.parquet: not a `metrics` table" in warning.getMessage()


def test_read_all_of_no_files_is_an_empty_table(caplog: pytest.LogCaptureFixture) -> None:
    """There is no warning if nothing is skipped."""
    assert parquet.read_all([], "metrics").schema.equals(schemas.SCHEMAS["metrics"])
    assert not caplog.records


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    """`seed=7` in a path is a folder's name and not a column."""
    folder = tmp_path / "seed=7"
    folder.mkdir()
    path = put(folder / "metrics.parquet", "metrics", 2)
    assert parquet.read(path).schema.equals(schemas.SCHEMAS["metrics"])
