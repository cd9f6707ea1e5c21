"""The precision in which a training computes, and what the processor supports natively."""

import logging
import re
from pathlib import Path

from cnn.config.training import Training

log = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")
_NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux names them, on x86 and on Arm


def resolved(training: Training) -> Training:
    """Return the training with precision `auto` replaced: bfloat16 if native here, else float32."""
    if training.precision != "auto":
        return training
    precision = "bfloat16" if has_bfloat16() else "float32"
    return training.model_copy(update={"precision": precision})


def warn_of_emulation(training: Training, device_kind: str) -> None:
    """Warn if the processor has no instructions for the chosen precision."""
    if training.precision == "bfloat16" and device_kind == "cpu" and not has_bfloat16():
        log.warning(
            "train.precision: this processor emulates bfloat16, which is slower than float32; "
            "use float32, or auto, which chooses what the processor supports"
        )


def has_bfloat16() -> bool:
    """Return whether the processor has instructions that multiply bfloat16 matrices."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return False
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and bool(_NATIVE & set(flags[1].split()))
