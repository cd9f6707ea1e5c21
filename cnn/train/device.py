"""Import TensorFlow and set up the device and the threads that it computes with."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnn.config.run import RuntimeConfig
from cnn.errors import ConfigError

_NOISE = re.compile(
    rb"[IWE]\d{4} .*(cudart_stub|cuda_platform|port)\.cc|WARNING: All log messages before absl"
)


@dataclass(frozen=True)
class Device:
    """The device that computes: its kind (cpu or gpu), its name and the threads per operation."""

    kind: str
    name: str
    threads: int

    def describe(self) -> dict[str, Any]:
        """Return the fields as a plain dict, for a manifest."""
        return asdict(self)


def prepare(runtime: RuntimeConfig) -> Device:
    """Import TensorFlow and Keras, set device, threads and determinism; return the device.

    Call this on the main thread before any work runs in parallel: two threads that import
    TensorFlow and Keras at the same time deadlock. Raises ConfigError if the setting is `gpu`
    and there is none.
    """
    with _quiet_start():
        import keras
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    keras.config.disable_traceback_filtering()
    tf.config.experimental.enable_op_determinism()
    # TensorFloat-32 rounds factors to 10 bits, and TensorFlow still calls that float32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if runtime.device == "gpu" and not gpus:
        raise ConfigError(
            "runtime.device: gpu is refused because TensorFlow finds no GPU; "
            "use cpu or auto, or install filterscope[gpu] and a GPU driver"
        )
    _set_up(tf, runtime, gpus)
    used = [] if runtime.device == "cpu" else gpus
    name = _gpu_name(tf, used[0]) if used else cpu_name()
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
    return Device("gpu" if used else "cpu", name, threads)


def cpu_name() -> str:
    """Return the processor's model name, or "unknown"."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as stream:
            lines = [line for line in stream if line.startswith("model name")]
    except OSError:
        return "unknown"
    return lines[0].partition(":")[2].strip() if lines else "unknown"


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Suppress what TensorFlow's C++ code prints before its logging can be configured.

    TF_CPP_MIN_LOG_LEVEL does not reach those lines. Everything else that the process writes
    to standard error in the meantime is printed afterwards.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    os.write(2, line)


def _set_up(tf: Any, runtime: RuntimeConfig, gpus: list[Any]) -> None:
    """Apply the settings, which TensorFlow accepts only before its first operation."""
    try:
        if runtime.device == "cpu" and tf.config.get_visible_devices("GPU"):
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus:
            if not tf.config.experimental.get_memory_growth(gpu):
                tf.config.experimental.set_memory_growth(gpu, True)
        if runtime.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(runtime.threads)
    except RuntimeError as error:
        raise ConfigError(f"runtime: TensorFlow has already started: {error}") from None


def _gpu_name(tf: Any, gpu: Any) -> str:
    details = tf.config.experimental.get_device_details(gpu)
    return str(details.get("device_name", gpu.name))
