"""A process that is killed while it publishes leaves only whole artifacts."""

import random
import time
from pathlib import Path

import pytest

from cnn.io import atomic
from cnn.store.keys import Key
from cnn.store.store import Store
from tests.cnn.io.test_atomic import hidden, process

N_KILLS = 20
SIZE = 1_500_000  # bytes, about the size of a model

# Publishes artifacts again and again, alternately under the same key and under a new one.
PUBLISH = f"""
import sys
from pathlib import Path
from cnn.store.keys import Key
from cnn.store.store import Store
store, n = Store(Path(sys.argv[1])), int(sys.argv[2]) * 1000
def produce(folder):
    for name in ("a", "b"):
        (folder / f"{{name}}.bin").write_bytes(bytes([n % 256]) * {SIZE})
    return {{"n": n}}
print("ready", flush=True)
while True:
    n += 1
    store.publish(Key("model", {{"n": 0}}), (), produce, replace=True)
    store.publish(Key("model", {{"n": n}}), (), produce)
"""


@pytest.mark.slow
def test_a_killed_publish_leaves_only_whole_artifacts(tmp_path: Path) -> None:
    """After a kill at a random time, every artifact with a final name verifies."""
    store, delays, n_interrupted = Store(tmp_path / "artifacts"), random.Random(14), 0
    for i in range(N_KILLS):
        with process(PUBLISH, store.root, i) as publishing:  # killed after the block
            time.sleep(delays.uniform(0.02, 0.5))
            assert publishing.poll() is None
        n_interrupted += any(name.endswith(atomic.SUFFIX) for name in hidden(store.root / "store"))
        whole = list(store.manifests("model"))
        assert len(whole) == len(list((store.root / "store" / "model").glob("[!.]*")))
        for manifest in whole:
            store.open(manifest.ref)
    assert n_interrupted > N_KILLS // 4
    assert store.find(Key("model", {"n": 0})).manifest is not None
