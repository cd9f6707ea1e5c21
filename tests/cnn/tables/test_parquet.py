"""The parquet tables: one schema for no rows and for many, read alike by everyone."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cnn.tables import parquet, schemas

every_table = pytest.mark.parametrize("name", schemas.SCHEMAS)
every_length = pytest.mark.parametrize("n", [0, 3])


def value(kind: pa.DataType, i: int) -> Any:
    """Return the i-th value of a column."""
    if pa.types.is_list(kind):
        return [value(kind.value_type, i), value(kind.value_type, i + 1)]
    if pa.types.is_timestamp(kind):
        return datetime(2026, 1, 1 + i, tzinfo=UTC)
    for test, made in (
        (pa.types.is_string, f"text {i}"),
        (pa.types.is_boolean, i % 2 == 0),
        (pa.types.is_integer, i),
        (pa.types.is_floating, i / 4),
    ):
        if test(kind):
            return made
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


@every_table
@every_length
def test_a_file_has_exactly_the_declared_schema(tmp_path: Path, name: str, n: int) -> None:
    """The same names, order and types for no rows and for many, and no index column."""
    path = put(tmp_path / "table.parquet", name, n)
    assert pq.read_schema(path).remove_metadata().equals(schemas.SCHEMAS[name])
    read = parquet.read(path)
    assert read.schema.names[0] == "schema_version"
    assert read.column("schema_version").to_pylist() == [schemas.SCHEMA_VERSION] * n
    for column, wanted in columns(name, n).items():
        assert read.column(column).to_pylist() == wanted


@every_table
def test_no_column_is_of_a_type_that_depends_on_its_values(name: str) -> None:
    """A null type or a dictionary would differ from file to file."""
    assert not [f for f in schemas.SCHEMAS[name] if pa.types.is_null(f.type)]
    assert not [f for f in schemas.SCHEMAS[name] if pa.types.is_dictionary(f.type)]


@every_table
@every_length
def test_pandas_polars_and_duckdb_read_the_same(tmp_path: Path, name: str, n: int) -> None:
    """Whatever a consumer opens the table with: names, order and number of rows."""
    path = put(tmp_path / "table.parquet", name, n)
    frame = duckdb.sql(f"select * from read_parquet('{path}')")
    seen = {
        "pandas": (list(pd.read_parquet(path).columns), len(pd.read_parquet(path))),
        "polars": (pl.read_parquet(path).columns, pl.read_parquet(path).height),
        "duckdb": (frame.columns, len(frame.fetchall())),
    }
    wanted = (["schema_version", *columns(name, 0)], n)
    assert seen == dict.fromkeys(seen, wanted)


@every_table
def test_one_glob_reads_many_runs(tmp_path: Path, name: str) -> None:
    """Files of different runs, an empty one first, are one table with the types of each."""
    paths = [put(tmp_path / f"{n}.parquet", name, n) for n in (0, 3)]
    together = str(tmp_path / "*.parquet")
    assert pl.read_parquet(together).height == 3
    assert len(duckdb.sql(f"select * from read_parquet('{together}')").fetchall()) == 3
    assert pd.read_parquet(tmp_path).shape == (3, len(schemas.SCHEMAS[name]))
    assert pl.read_parquet_schema(paths[0]) == pl.read_parquet_schema(paths[1])
    assert (pd.read_parquet(paths[0]).dtypes == pd.read_parquet(paths[1]).dtypes).all()


def test_what_is_not_known_is_null_not_another_type(tmp_path: Path) -> None:
    """A metric without an interval keeps its column a number."""
    path = tmp_path / "metrics.parquet"
    row = {"split": "test", "metric": "accuracy", "value": 0.5, "n": 2}
    parquet.write_rows(path, "metrics", [{**row, "ci_low": None, "ci_high": None}])
    assert parquet.read(path).schema.equals(schemas.SCHEMAS["metrics"])
    assert parquet.read(path).column("ci_low").to_pylist() == [None]


def test_rows_and_columns_write_the_same_bytes(tmp_path: Path) -> None:
    """One table has one file, however it was handed over, whenever it is written."""
    as_columns = columns("history", 3)
    as_rows = [{name: values[i] for name, values in as_columns.items()} for i in range(3)]
    parquet.write(tmp_path / "a.parquet", "history", as_columns)
    parquet.write_rows(tmp_path / "b.parquet", "history", as_rows)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"n": [1, 2]}, {"n": ["many"]}, {"value": ["high"]}, {"split": [1]}],
    ids=["length", "text for a whole", "text for a float", "number for a text"],
)
def test_columns_that_do_not_fit_are_not_written(tmp_path: Path, change: dict[str, Any]) -> None:
    """Nothing is cut or made up to fit the schema."""
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        parquet.write(tmp_path / "t.parquet", "metrics", {**columns("metrics", 1), **change})
    assert not (tmp_path / "t.parquet").exists()


def test_a_missing_column_is_not_made_up(tmp_path: Path) -> None:
    """A slip in a column's name does not end as a column of nulls."""
    given = columns("metrics", 1)
    given["ci_lo"] = given.pop("ci_low")
    with pytest.raises(KeyError, match="ci_low"):
        parquet.write(tmp_path / "t.parquet", "metrics", given)
    with pytest.raises(KeyError, match="ci_low"):
        parquet.write_rows(
            tmp_path / "t.parquet", "metrics", [{"split": "test", "metric": "x", "value": 1}]
        )
