"""Case 16: parquet that is read while it is written; the same columns for every reader.

Sources: astronomy-commons/hats-import#634; apache/arrow#3203; pandas-dev/pandas#51664;
pola-rs/polars#7291.
"""

import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
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
from tests import ROOT
from tests.cnn.tables.test_parquet import columns, put

every_table = pytest.mark.parametrize("name", schemas.SCHEMAS)

# Publishes artifacts and runs, and makes the index anew, until it is ended.
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from cnn.runs import folders
from cnn.tables import parquet
from cnn.store.keys import Key
from cnn.runs.records import RunRecord
from cnn.store.store import Store
store = Store(Path(sys.argv[1]))
rows = [{"split": "test", "metric": f"m{i}", "value": i / 7, "ci_low": None, "ci_high": None,
         "n": i} for i in range(20_000)]
def produce(folder):
    for name in ("metrics", "again"):
        parquet.write_rows(folder / f"{name}.parquet", "metrics", rows)
    return {}
print("ready", flush=True)
n = 0
while True:
    n += 1
    ref = store.publish(Key("evaluation", {"n": n % 5}), (), produce, replace=n % 2).ref
    record = RunRecord(run=f"20260301T000000Z-{sys.argv[2]}-{n}", created=datetime.now(UTC),
        status="completed", data="digits", recipe="fast", seed=n, config={}, training={}, steps=(),
        seconds=1)
    folders.publish(store.runs, record, {"evaluation": store.open(ref)})
"""


def _with_pathlib(runs: Path) -> int:
    tables = [path for path in runs.glob("**/*.parquet") if path.parent != runs]
    return sum(len(pq.read_table(path)) for path in tables)


def _with_pandas(runs: Path) -> int:
    return sum(len(pd.read_parquet(path)) for path in runs.glob("*/tables/*.parquet"))


def _with_polars(runs: Path) -> int:
    return pl.scan_parquet(f"{runs}/*/tables/*.parquet").select(pl.len()).collect().item()


def _with_duckdb(runs: Path) -> int:
    text = f"select count(*) from read_parquet('{runs}/*/tables/*.parquet')"
    (row,) = duckdb.sql(text).fetchall()
    return int(row[0])


def _index(runs: Path) -> int:
    # Its bytes at once: given a path, a reader opens it twice, and it is another file by then.
    read: list[Callable[[BytesIO], Any]] = [pq.read_table, pd.read_parquet, pl.read_parquet]
    indexes = [path.read_bytes() for path in runs.glob("*.parquet")]
    return sum(len(one(BytesIO(index))) for one in read for index in indexes)


@pytest.mark.slow
def test_a_reader_never_meets_half_a_file(tmp_path: Path) -> None:
    """Twenty seconds, every 5 ms, with globs that look into hidden folders, during two writers."""
    store = tmp_path / "artifacts"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, store, str(i)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(2)
    ]
    readers: list[Callable[[Path], int]] = [
        *(_with_pathlib, _with_pandas, _with_polars, _with_duckdb, _index)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        while not (store / "runs" / "index.parquet").exists():
            time.sleep(0.005)
        end, n_read = time.monotonic() + 20, 0
        while time.monotonic() < end:
            for read in readers:
                n_read += read(store / "runs") > 0
                time.sleep(0.005)
        assert n_read > 20
        assert [writer.poll() for writer in writers] == [None, None]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_the_readme_names_columns_that_there_are() -> None:
    """Every name in the README's table of tables is a column, and they stand in their order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/.]+)` \| one [^|]*\| (.*) \|$", text, re.MULTILINE)
    named = {name.replace("runs/index.parquet", "runs"): line for name, line in rows}
    assert set(named) == set(schemas.SCHEMAS)
    for name, line in named.items():
        written = re.findall(r"`(\w+)`", line)
        assert written == [column for column in schemas.SCHEMAS[name].names if column in written]


def _seen(path: Path) -> dict[str, list[str]]:
    return {
        "arrow": pq.read_schema(path).names,
        "pandas": list(pd.read_parquet(path).columns),
        "polars": pl.read_parquet(path).columns,
        "duckdb": duckdb.sql(f"select * from read_parquet('{path}')").columns,
    }


@every_table
@pytest.mark.parametrize("n", [0, 1, 3])
def test_every_reader_sees_the_documented_columns(tmp_path: Path, name: str, n: int) -> None:
    """With no rows as with some: the same names in the same order, and no index."""
    wanted = schemas.SCHEMAS[name].names
    seen = _seen(put(tmp_path / "table.parquet", name, n))
    assert seen == dict.fromkeys(seen, wanted)


@every_table
def test_types_do_not_depend_on_the_rows(tmp_path: Path, name: str) -> None:
    """For each reader, a table without rows has the types of one with rows, or with nulls."""
    none, some = (put(tmp_path / f"{n}.parquet", name, n) for n in (0, 3))
    nulls = tmp_path / "nulls.parquet"
    parquet.write(nulls, name, {column: [None] * 2 for column in columns(name, 0)})

    def types(path: Path) -> list[Any]:
        relation = duckdb.sql(f"select * from read_parquet('{path}')")
        return [pq.read_schema(path), pl.read_parquet_schema(path), relation.types]

    assert types(none) == types(some) == types(nulls)
    assert (pd.read_parquet(none).dtypes == pd.read_parquet(some).dtypes).all()


@every_table
def test_filtered_rows_keep_the_columns(tmp_path: Path, name: str) -> None:
    """What a consumer filters down to nothing and writes again has no surprise column."""
    path = put(tmp_path / "table.parquet", name, 3)
    frame = pd.read_parquet(path)
    filtered = frame[frame["schema_version"] < 0]
    assert len(filtered) == 0
    assert list(filtered.columns) == schemas.SCHEMAS[name].names
    parquet.write_rows(tmp_path / "again.parquet", name, filtered.to_dict("records"))
    assert _seen(tmp_path / "again.parquet") == _seen(path)


HALF = b"PAR1" + bytes(range(256)) * 2
DAMAGE = {
    "zero": lambda whole: b"",
    "half": lambda whole: HALF,
    "head": lambda whole: whole[: len(whole) // 2],
    "no end": lambda whole: whole[:-1],
    "no beginning": lambda whole: whole[4:],
    "text": lambda whole: b"<!DOCTYPE html>",
    "zeros": lambda whole: bytes(len(whole)),
    "a hole": lambda whole: whole[:-200] + bytes(100) + whole[-100:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_given_by_hand_is_refused(tmp_path: Path, damage: str) -> None:
    """One line that names the file, whatever is wrong with it."""
    path = put(tmp_path / "table.parquet", "metrics", 3)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ArtifactError, match=f"^{path}: not a complete parquet file") as caught:
        parquet.read(path)
    assert "\n" not in str(caught.value)


def test_no_table_at_all_is_refused(tmp_path: Path) -> None:
    """A name without a file, and a folder in its place."""
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(ArtifactError, match="not a complete parquet file"):
            parquet.read(path)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (1, 3, 2, 0)])
def test_among_many_the_damaged_are_left_out_with_one_warning(
    tmp_path: Path, order: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """All rows of the whole files are there; the warning names the others and nothing else."""
    paths = [put(tmp_path / f"{n}.parquet", "metrics", n) for n in (3, 2, 4, 5)]
    paths[1].write_bytes(b"")
    paths[3].write_bytes(HALF)
    read = parquet.read_all([paths[i] for i in order], "metrics")
    assert read.schema.equals(schemas.SCHEMAS["metrics"])
    assert len(read) == 3 + 4
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    named = [path for path in paths if str(path) in warning.getMessage()]
    assert named == [paths[1], paths[3]]


def test_among_many_another_table_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of other columns is not mixed in, and no warning comes where nothing is wrong."""
    paths = [put(tmp_path / f"{name}.parquet", name, 2) for name in ("metrics", "history")]
    assert len(parquet.read_all(paths[:1], "metrics")) == 2
    assert len(parquet.read_all([], "metrics")) == 0
    assert not caplog.records
    assert len(parquet.read_all(paths, "metrics")) == 2
    assert "history.parquet: not a table metrics" in caplog.text


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    """`seed=7` in a path is the reader's own name for a folder, no column of the table."""
    folder = tmp_path / "seed=7"
    folder.mkdir()
    path = put(folder / "metrics.parquet", "metrics", 2)
    assert parquet.read(path).schema.equals(schemas.SCHEMAS["metrics"])
    assert isinstance(parquet.read(path), pa.Table)
