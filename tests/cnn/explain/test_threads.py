"""The number of threads changes how long the work takes, and nothing else."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnn.config.run import DataConfig, MiningConfig, RuntimeConfig
from cnn.data import sources
from cnn.explain import activations, filters, patches
from cnn.train import device, networks, recipes

pytestmark = pytest.mark.slow


def main(n_threads: int, downloads: Path) -> None:
    """Print digests of what an untrained network gives for the data set, with so many threads."""
    device.prepare(RuntimeConfig(threads=n_threads))
    config = DataConfig(source="digits")
    digits = sources.load(sources.identify(config, downloads), config)
    network = networks.build(recipes.SPEC, digits.image_shape, 10, seed=0)
    images = digits.splits["train"].images[:700]
    digests = {}
    for layer in ("conv1", "conv2"):
        values = b"".join(b.values.tobytes() for b in activations.stream(network, layer, images))
        mined = patches.mine(network, digits, MiningConfig(layer=layer), digits.class_names)
        for name, content in (
            ("activations", values),
            ("filters", json.dumps(filters.describe(network, layer, digits).rows).encode()),
            ("patches", json.dumps(mined.rows).encode() + mined.pixels.tobytes()),
            ("projections", mined.views["projections"].tobytes()),
        ):
            digests[f"{name} of {layer}"] = hashlib.sha256(content).hexdigest()
    sys.stdout.write(json.dumps(digests))


def _run(n_threads: int, folder: Path) -> dict[str, str]:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(n_threads)}
    command = [sys.executable, "-m", __name__, str(n_threads), str(folder)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    digests: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
    return digests


def test_one_thread_and_two_give_the_same_bytes(tmp_path: Path) -> None:
    """Activations, filters, patches and projections of both layers, in TensorFlow and in NumPy."""
    one, two = _run(1, tmp_path), _run(2, tmp_path)
    assert len(one) == 8
    assert one == two


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
