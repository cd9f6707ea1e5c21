"""Files that are made to fill the memory take no more than 200 MB beyond their own size."""

import gzip
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnn.store.keys import Key
from cnn.store.store import Store
from tests import ROOT

pytestmark = pytest.mark.slow

GIGABYTE = 1 << 30
KEY = Key("model", {"step": "train_model"})

# Runs `work` with 200 MB of address space beyond what the imports took and the file's size.
SCRIPT = """
import resource, sys
from pathlib import Path
from cnn.data import idx
from cnn.errors import FilterscopeError
from cnn.model_io import archives
from cnn.runs import records
from cnn.store.keys import Key
from cnn.store.store import Store
import h5py, numpy
path = Path(sys.argv[1])
pages = int(Path("/proc/self/statm").read_text().split()[0])
size = max((file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()))
own = size if int(sys.argv[2]) else 0
limit = pages * resource.getpagesize() + (200 << 20) + own
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print("ok", {work})
except FilterscopeError as error:
    print("refused", error)
"""


def run(work: str, path: Path, *, with_size: bool = True) -> str:
    """Return what the work printed; MemoryError ends it with a traceback and fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{work}", work), path, str(int(with_size))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def zeros(stream: object, n_bytes: int) -> None:
    for _ in range(n_bytes >> 20):
        stream.write(bytes(1 << 20))  # type: ignore[attr-defined]


def packed(path: Path, header: bytes) -> None:
    """Write a gzip file of a header and a gigabyte of zeros: a megabyte on the disk."""
    with gzip.open(path, "wb", compresslevel=6) as stream:
        stream.write(header)
        zeros(stream, GIGABYTE)


HONEST = struct.pack(">HBB3I", 0, 8, 3, GIGABYTE // 1024, 32, 32)
SMALL = struct.pack(">HBB3I", 0, 8, 3, 60, 28, 28)
HUGE = struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**10, 2**10)


@pytest.mark.parametrize("header", [HONEST, SMALL, HUGE], ids=["honest", "small", "huge"])
def test_a_gzip_bomb_is_refused(tmp_path: Path, header: bytes) -> None:
    """Whether its header admits the gigabyte, hides it or boasts, nothing is unpacked whole."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    packed(path, header)
    assert path.stat().st_size < 2 << 20
    for work in ("len(idx.load(path).array)", "idx.digest(path)"):
        assert run(work, path).startswith(f"refused {path}: the header ")


def test_a_big_file_of_data_is_read_with_its_own_size(tmp_path: Path) -> None:
    """Elements of eight bytes in the other byte order take no second copy."""
    path = tmp_path / "train-images-idx3-double"
    n = 400 << 20
    with path.open("wb") as stream:
        stream.write(struct.pack(">HBB3I", 0, 0x0E, 3, n // 8 // 1024, 32, 32))
        stream.truncate(16 + n)
    assert run("idx.load(path).array.shape", path).split() == ["ok", "(51200,", "32,", "32)"]
    assert run("len(idx.digest(path))", path, with_size=False).split() == ["ok", "64"]


def _nested(path: Path) -> None:
    path.write_bytes(b"[" * (100 << 20))


def _many(path: Path) -> None:
    path.write_bytes(b'{"a": [' + b"[]," * (1 << 20) + b"0]}")


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(10 * GIGABYTE)


@pytest.mark.parametrize("fill", [_nested, _many, _sparse])
def test_a_huge_manifest_or_record_is_damaged(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    """The store goes on without it."""
    store = Store(tmp_path / "artifacts")
    folder = store.root / "store" / KEY.kind / KEY.digest
    folder.mkdir(parents=True)
    fill(folder / "manifest.json")
    work = f"Store(path).find(Key('model', {KEY.components!r})).problem"
    answer = run(work, store.root, with_size=False)
    assert answer == "ok manifest.json is missing or damaged\n"
    (store.runs / "20260301T123045Z-a").mkdir(parents=True)
    fill(store.runs / "20260301T123045Z-a" / "run.json")
    assert run("list(runs.records(path))", store.runs, with_size=False) == "ok []\n"


def test_an_archive_that_unpacks_to_a_gigabyte_is_refused(tmp_path: Path) -> None:
    """Neither its parts together nor one data set in it may be more than there is."""
    import h5py

    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("metadata.json", "config.json"):
            archive.writestr(name, json.dumps({}))
        with archive.open("model.weights.h5", "w", force_zip64=True) as stream:
            zeros(stream, GIGABYTE)
    assert "it unpacks to far more than it is" in run("archives.read(path)", path)
    weights = tmp_path / "weights.h5"
    with h5py.File(weights, "w") as file:
        file.create_dataset("w", (GIGABYTE,), np.float32, chunks=(1 << 20,), compression="gzip")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json"):
            archive.writestr(name, json.dumps({}))
        archive.write(weights, "model.weights.h5")
    answer = run("list(archives.read(path).arrays())", path)
    assert "it says that it holds more than it can" in answer
