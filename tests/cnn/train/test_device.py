"""The device of a training: what `runtime.device` chooses, and the error for a full memory."""

import json
import subprocess
import sys
from typing import Any

import pytest

from cnn.config.run import RuntimeConfig
from cnn.errors import ConfigError
from cnn.train import device

pytestmark = pytest.mark.usefixtures("prepared")

_START = """
import json, sys
import numpy as np
from cnn.config.run import RuntimeConfig
from cnn.data.dataset import Dataset, Split
from cnn.errors import TrainingError
from cnn.train import device, fit, loop, networks, recipes

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (200, 28, 28, 1), np.uint8)
labels = rng.integers(0, 10, 200)
"""

_ON_BOTH = """
import tensorflow as tf
parts = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
device.prepare(RuntimeConfig(device="cpu", threads=1))
settings = recipes.SPEC.model_copy(
    update={"batch_size": 8, "dense1_units": 16, "augment_shift": 2.0, "ema_decay": 0.5}
)
results = []
for name in ("CPU:0", "CPU:1"):
    with tf.device(name):
        network = networks.build(settings, (28, 28, 1), 10, 0)
        training = loop.Loop(network, settings, 0, images, labels)
        losses = training.run(0, 3).losses.tolist()
        held = loop.hold(images, labels)
        values = [*training._variables, *held, training._images]
        on_device = {v.device[-5:] for v in values} == {name}
        results.append([on_device, losses, training.evaluate(*held)])
print(json.dumps(results))
"""

_WITH_LITTLE_MEMORY = """
import resource
device.prepare(RuntimeConfig(device="cpu"))
whole = Split(images, labels, np.arange(200))
empty = Split(images[:0], labels[:0], np.arange(0))
splits = {"train": whole, "validation": empty, "test": empty}
dataset = Dataset("noise", tuple("0123456789"), splits, {})
small = recipes.SPEC.model_copy(update={"batch_size": 8, "steps": 2})
fit.fit(dataset, small, 0)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27,) * 2)
try:
    fit.fit(dataset, small.model_copy(update={"batch_size": 65_536}), 0)
except TrainingError as error:
    print(json.dumps(str(error)))
"""


def _printed(code: str) -> Any:
    """Return the last line of a fresh process: TensorFlow's devices can be set only once."""
    command = [sys.executable, "-c", _START + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_training_stays_on_its_device_and_is_the_same_on_each() -> None:
    """Weights, slots, averages and images are all on the second of two logical devices."""
    on_first, on_second = _printed(_ON_BOTH)
    assert on_first[0]
    assert on_first == on_second


@pytest.mark.slow
def test_a_full_memory_names_the_batch_size() -> None:
    """A batch that exceeds the memory ends in a TrainingError, not in one of TensorFlow's."""
    message = _printed(_WITH_LITTLE_MEMORY)
    assert message.startswith("train.batch_size: the device's memory is too small for the training")
    assert "batch of 65536; lower the batch size (OOM when allocating tensor with" in message


class _Gpu:
    name, device_type = "/physical_device:GPU:0", "GPU"


@pytest.mark.parametrize(
    ("setting", "n_gpus", "expected"),
    [
        ("auto", 0, "cpu"),
        ("cpu", 0, "cpu"),
        ("cpu", 1, "cpu"),
        ("auto", 1, "gpu"),
        ("gpu", 1, "gpu"),
    ],
)
def test_auto_takes_a_gpu_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, setting: Any, n_gpus: int, expected: str
) -> None:
    """Its memory grows as needed; with `cpu` it is hidden from TensorFlow."""
    import tensorflow as tf

    visible, growing = [_Gpu()] * n_gpus, []
    experimental = tf.config.experimental
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [_Gpu()] * n_gpus)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: visible)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: visible.clear())
    monkeypatch.setattr(experimental, "get_memory_growth", lambda gpu: False)
    monkeypatch.setattr(experimental, "set_memory_growth", lambda gpu, on: growing.append(on))
    monkeypatch.setattr(experimental, "get_device_details", lambda gpu: {"device_name": "A GPU"})
    chosen = device.prepare(RuntimeConfig(device=setting))
    assert chosen.kind == expected
    assert chosen.name == ("A GPU" if expected == "gpu" else device.cpu_name())
    assert bool(visible) == (expected == "gpu")
    assert growing == [True] * n_gpus


def test_a_missing_gpu_is_refused() -> None:
    """The message names the setting and what to do."""
    with pytest.raises(ConfigError, match=r"runtime\.device: gpu is refused.*use cpu or auto"):
        device.prepare(RuntimeConfig(device="gpu"))


def test_float32_is_float32_on_a_gpu_too(prepared: device.Device) -> None:
    """TensorFloat-32, which rounds factors to 10 bits, is off."""
    import tensorflow as tf

    assert not tf.config.experimental.tensor_float_32_execution_enabled()
