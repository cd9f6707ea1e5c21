"""Malicious files take at most 200 MB of memory beyond their own size."""

import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnn.store.keys import Key
from cnn.store.store import Store
from tests import ROOT, commands

pytestmark = pytest.mark.slow

GIGABYTE = 1 << 30
KEY = Key("model", {"step": "train_model"})

# Runs `work` with 200 MB of address space beyond the imports and the size of the file.
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
    """Return the output of the work; a MemoryError in it fails the test."""
    script = SCRIPT.replace("{work}", work)
    return commands.run_python(script, str(path), str(int(with_size)), cwd=ROOT).stdout


def zeros(stream: object, n_bytes: int) -> None:
    for _ in range(n_bytes >> 20):
        stream.write(bytes(1 << 20))  # type: ignore[attr-defined]


def packed(path: Path, header: bytes) -> None:
    """Write a gzip file of a header and a gigabyte of zeros, which takes a megabyte on disk."""
    with gzip.open(path, "wb", compresslevel=6) as stream:
        stream.write(header)
        zeros(stream, GIGABYTE)


HONEST = struct.pack(">HBB3I", 0, 8, 3, GIGABYTE // 1024, 32, 32)
SMALL = struct.pack(">HBB3I", 0, 8, 3, 60, 28, 28)
HUGE = struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**10, 2**10)


@pytest.mark.parametrize("header", [HONEST, SMALL, HUGE], ids=["true", "smaller", "larger"])
def test_a_gzip_bomb_is_refused(tmp_path: Path, header: bytes) -> None:
    """Whether its header states the true size, a smaller or a larger one."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    packed(path, header)
    assert path.stat().st_size < 2 << 20
    for work in ("len(idx.load(path).array)", "idx.digest(path)"):
        assert run(work, path).startswith(f"refused {path}: the header ")


def test_a_large_data_file_needs_only_its_own_size(tmp_path: Path) -> None:
    """Its elements have the other byte order, and no second copy is made."""
    path = tmp_path / "train-images-idx3-double"
    n = 400 << 20
    with path.open("wb") as stream:
        stream.write(struct.pack(">HBB3I", 0, 0x0E, 3, n // 8 // 1024, 32, 32))
        stream.truncate(16 + n)
    assert run("idx.load(path).array.shape", path).split() == ["ok", "(51200,", "32,", "32)"]
    assert run("len(idx.digest(path))", path, with_size=False).split() == ["ok", "64"]


def nested(path: Path) -> None:
    path.write_bytes(b"[" * (100 << 20))


def many(path: Path) -> None:
    path.write_bytes(b'{"a": [' + b"[]," * (1 << 20) + b"0]}")


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(10 * GIGABYTE)


@pytest.mark.parametrize("fill", [nested, many, sparse])
def test_a_huge_manifest_or_record_is_damaged(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    """The store treats it as missing."""
    store = Store(tmp_path / "artifacts")
    folder = store.root / "store" / KEY.kind / KEY.digest
    folder.mkdir(parents=True)
    fill(folder / "manifest.json")
    work = f"Store(path).find(Key('model', {KEY.components!r})).problem"
    answer = run(work, store.root, with_size=False)
    assert answer == "ok manifest.json is missing or damaged\n"
    (store.runs / "20260301T123045Z-a").mkdir(parents=True)
    fill(store.runs / "20260301T123045Z-a" / "run.json")
    assert run("list(records.read_all(path))", store.runs, with_size=False) == "ok []\n"


def test_an_archive_that_unpacks_to_a_gigabyte_is_refused(tmp_path: Path) -> None:
    """The gigabyte may be a whole file of the archive or one data set in its weights."""
    import h5py

    path, weights = tmp_path / "model.keras", tmp_path / "weights.h5"
    with weights.open("wb") as stream:
        stream.truncate(GIGABYTE)
    archive(path, weights)
    assert "it unpacks to far more than its own size" in run("archives.read(path)", path)
    with h5py.File(weights, "w") as file:
        file.create_dataset("w", (GIGABYTE,), np.float32, chunks=(1 << 20,), compression="gzip")
    archive(path, weights)
    output = run("list(archives.read(path).arrays())", path)
    assert "it claims to hold more than its size allows" in output


def archive(path: Path, weights: Path) -> None:
    """Write a .keras archive with these weights."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name in ("metadata.json", "config.json"):
            stream.writestr(name, "{}")
        stream.write(weights, "model.weights.h5")
