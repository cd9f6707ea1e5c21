"""Tables are read while runs are being published."""

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
import pyarrow.parquet as pq
import pytest

from tests import ROOT

# Publishes artifacts and runs, and rebuilds the index, until it is killed.
WRITER = """
import sys
from pathlib import Path
from cnn.runs import folders
from cnn.store.keys import Key
from cnn.store.store import Store
from cnn.tables import parquet
from tests.plain_record import PLAIN
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
    record = PLAIN.model_copy(update={"run": f"20260301T000000Z-{sys.argv[2]}-{n}", "seed": n})
    folders.publish(store.runs, record, {"evaluation": store.open(ref)})
"""


TABLES = "*/tables/*.parquet"
READERS: dict[str, Callable[[Path], int]] = {
    "pathlib": lambda runs: sum(len(pq.read_table(path)) for path in runs.glob("*/**/*.parquet")),
    "pandas": lambda runs: sum(len(pd.read_parquet(path)) for path in runs.glob(TABLES)),
    "polars": lambda runs: pl.scan_parquet(runs / TABLES).select(pl.len()).collect().item(),
    "duckdb": lambda runs: len(duckdb.sql(f"from '{runs / TABLES}'").limit(1).fetchall()),
}


def index(runs: Path) -> int:
    # Given a path, a reader would open it twice, and the file may be replaced in between.
    content = (runs / "index.parquet").read_bytes()
    read: list[Callable[[BytesIO], Any]] = [pq.read_table, pd.read_parquet, pl.read_parquet]
    return sum(len(reader(BytesIO(content))) for reader in read)


# astronomy-commons/hats-import#634
@pytest.mark.slow
def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """For twenty seconds, with two writers and globs that search hidden folders."""
    runs = tmp_path / "artifacts" / "runs"
    command = [sys.executable, "-c", WRITER, runs.parent]
    writers = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for i in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        while not (runs / "index.parquet").exists():
            time.sleep(0.005)
        end, n_read = time.monotonic() + 20, 0
        while time.monotonic() < end:
            for read in (*READERS.values(), index):
                n_read += read(runs) > 0
                time.sleep(0.005)
        assert n_read > 20
        assert [writer.poll() for writer in writers] == [None, None]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
