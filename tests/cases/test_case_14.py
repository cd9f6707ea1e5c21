"""Case 14: killed while saving, and half a model given by hand.

Sources: keras-team/keras#20463; Lightning-AI/pytorch-lightning#688; deepfakes/faceswap#329.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnn.data.dataset import Dataset
from cnn.errors import ArtifactError
from cnn.io import atomic
from cnn.model_io import exports
from cnn.store.keys import Key
from cnn.store.store import Store
from cnn.train import networks as models
from cnn.train import recipes
from tests import ROOT

N_KILLS = 20


@pytest.fixture(scope="module")
def saved(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained model of the usual size."""
    folder = tmp_path_factory.mktemp("model")
    exports.save_model(folder, models.build(recipes.FAST, digits.image_shape, 10, seed=0), digits)
    return folder


# Publishes the model again and again, in turn under one key and under a new one.
PUBLISH = """
import shutil, sys
from pathlib import Path
from cnn.store.keys import Key
from cnn.store.store import Store
store, source = Store(Path(sys.argv[1])), Path(sys.argv[2])
def produce(folder):
    for path in source.iterdir():
        shutil.copyfile(path, folder / path.name)
    (folder / "number.txt").write_text(str(n))
    return {"n": n}
print("ready", flush=True)
n = int(sys.argv[3]) * 1000
while True:
    n += 1
    store.publish(Key("model", {"n": 0}), (), produce, replace=True)
    store.publish(Key("model", {"n": n}), (), produce)
"""

REPLACE = """
import sys
from pathlib import Path
from cnn.io import atomic
target, source = Path(sys.argv[1]) / "model.keras", Path(sys.argv[2]) / "model.keras"
content = source.read_bytes()
print("ready", flush=True)
while True:
    atomic.replace(target, content)
"""


def killed(code: str, *words: object, after: float) -> None:
    """Run code and kill it some seconds after it began to save."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(after)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)


def leftovers(folder: Path) -> list[Path]:
    """Return what has a temporary name anywhere below a folder."""
    return [path for path in folder.rglob("*") if path.suffix == atomic.SUFFIX]


@pytest.mark.slow
def test_a_killed_publish_leaves_whole_artifacts_only(saved: Path, tmp_path: Path) -> None:
    """Twenty times at a random moment: what has a final name verifies and loads."""
    store, moments = Store(tmp_path / "artifacts"), random.Random(14)
    store.publish(Key("model", {"n": 0}), (), lambda folder: _copied(saved, folder))
    interrupted = 0
    for i in range(N_KILLS):
        killed(PUBLISH, store.root, saved, i, after=moments.uniform(0.02, 0.5))
        interrupted += bool(_unfinished(store))
        whole = list(store.manifests("model"))
        assert len(whole) == len(list((store.root / "store" / "model").glob("[!.]*")))
        for manifest in whole:
            store.open(manifest.ref)
    assert interrupted > N_KILLS // 4
    found = store.find(Key("model", {"n": 0}))
    assert found.manifest is not None
    assert exports.load_model(store.open(found.manifest.ref)).count_params() > 0


def _copied(source: Path, folder: Path) -> dict[str, float | int | str | None]:
    for path in source.iterdir():
        shutil.copyfile(path, folder / path.name)
    return {}


def _unfinished(store: Store) -> list[Path]:
    return [path for path in (store.root / "store").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_killed_replace_leaves_a_whole_file(saved: Path, tmp_path: Path) -> None:
    """Twenty times: the final name opens, temporaries have another suffix, a sweep removes them."""
    moments, interrupted = random.Random(15), 0
    shutil.copy(saved / "model.keras", tmp_path / "model.keras")
    whole = (saved / "model.keras").read_bytes()
    for _ in range(N_KILLS):
        killed(REPLACE, tmp_path, saved, after=moments.uniform(0.01, 0.2))
        assert (tmp_path / "model.keras").read_bytes() == whole
        assert [path.name for path in tmp_path.glob("*.keras")] == ["model.keras"]
        left = leftovers(tmp_path)
        interrupted += bool(left)
        assert sorted(atomic.sweep(tmp_path)) == sorted(left)
        assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert interrupted > N_KILLS // 4
    assert exports.load_model(tmp_path).count_params() > 0


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.7, 0.999])
def test_half_a_model_is_refused_as_such(saved: Path, tmp_path: Path, share: float) -> None:
    """However much is missing at the end, down to everything: no complete archive, by name."""
    path, whole = tmp_path / "model.keras", (saved / "model.keras").read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArtifactError, match=f"^{path}: not a complete .keras archive"):
        exports.load_model(tmp_path)


def test_a_model_with_a_hole_is_refused_as_such(saved: Path, tmp_path: Path) -> None:
    """The directory at the end is whole, and the weights before it are not."""
    path, content = tmp_path / "model.keras", bytearray((saved / "model.keras").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 512] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"not a complete .keras archive \(Bad CRC-32"):
        exports.load_model(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [(8, b"\x01\x00", "is encrypted"), (10, b"\x63\x00", "compression method is not supported")],
    ids=["encrypted", "compressed in an unknown way"],
)
def test_a_model_that_cannot_be_unpacked_is_refused_as_such(
    saved: Path, tmp_path: Path, place: int, value: bytes, why: str
) -> None:
    """The archive's directory says that a file in it takes a password, or another program."""
    path, content = tmp_path / "model.keras", bytearray((saved / "model.keras").read_bytes())
    entry = content.index(b"PK\x01\x02")  # the first of the directory
    content[entry + place : entry + place + 2] = value
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"not a complete .keras archive \(.*{why}"):
        exports.load_model(tmp_path)


def test_no_model_at_all_is_refused(tmp_path: Path) -> None:
    """A folder without the file ends in words, too."""
    with pytest.raises(ArtifactError, match="No such file"):
        exports.load_model(tmp_path)
