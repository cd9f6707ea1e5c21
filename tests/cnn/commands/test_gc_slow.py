"""Freeing beside other processes, and killed at any moment, for real."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnn.commands import gc, verify
from cnn.runs import records
from cnn.store.store import Store
from tests import ROOT
from tests.cnn.commands import filled_store

pytestmark = pytest.mark.slow

COLLECTS = """
import sys, time
from pathlib import Path
from cnn.commands import gc
from cnn.store.store import Store
store, seconds = Store(Path(sys.argv[1])), float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
n_freed, ends_at = 0, time.monotonic() + seconds
while time.monotonic() < ends_at:
    n_freed += len(gc.collect(store, 0).freed)
print(n_freed)
"""
USES = """
import sys, time
from pathlib import Path
from cnn.store import in_use
from cnn.store.keys import Key
from cnn.store.store import Store
from tests.cnn.commands import filled_store
store, seconds = Store(Path(sys.argv[1])), float(sys.argv[2])
def produce(folder):
    (folder / "images.npy").write_text("x" * 50)
    return {}
print("ready", flush=True)
sys.stdin.readline()
n_used, ends_at = 0, time.monotonic() + seconds
while time.monotonic() < ends_at:
    key = Key("dataset", {"settings": {"seed": n_used % 3}, "inputs": {}})
    with in_use.listed(store.root) as uses:
        uses.add(key)
        manifest = store.find(key).manifest
        if manifest is None:
            manifest = store.publish(key, (), produce)
            filled_store.age(filled_store.artifact_path(store, manifest.ref))
        for _ in range(5):
            assert (store.open(manifest.ref) / "images.npy").read_text() == "x" * 50
    n_used += 1
print(n_used)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that does not exist yet."""
    return Store(tmp_path / "artifacts")


def start(script: str, store: Store, seconds: float) -> subprocess.Popen[str]:
    """Start a process that waits for a line before it begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store.root), str(seconds)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def is_clean(store: Store) -> bool:
    left = list(store.root.rglob(".*.part"))
    return not verify.verify(store).broken and not left


def test_runs_and_several_gcs_at_once_never_meet_half_of_anything(store: Store) -> None:
    """What a run has listed can be opened as long as the run lasts, whoever frees meanwhile."""
    store.root.mkdir()
    processes = [start(script, store, 3) for script in (USES, USES, COLLECTS, COLLECTS)]
    for process in processes:
        go(process)
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert min(counts[:2]) > 3
    assert sum(counts[2:]) > 3
    gc.collect(store, 0)
    assert is_clean(store)
    assert list((store.root / "store/dataset").iterdir()) == []


@pytest.mark.parametrize("milliseconds", [0, 2, 4, 8, 16, 32])
def test_a_gc_that_is_killed_leaves_nothing_half_there(store: Store, milliseconds: int) -> None:
    """Each run that is still to be seen is whole, each artifact too; the next gc ends the work."""
    for seed in range(1, 6):
        filled_store.add_run(store, seed)
    process = start(COLLECTS, store, 60)
    go(process)
    time.sleep(milliseconds / 1000)
    process.kill()
    process.communicate()
    for item in verify.verify(store).broken:
        assert item.path == store.runs / "index.parquet"
    for record in records.read_all(store.runs):
        assert (store.runs / record.run / "report.html").exists()
    gc.collect(store, 0)
    assert is_clean(store)
    assert list(records.read_all(store.runs)) == []
