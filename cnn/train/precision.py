"""In which numbers a training computes, and which of them the processor has instructions for."""

import logging
import re
from pathlib import Path

from cnn.config.training import Training

log = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")
_NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux names them, on x86 and on Arm


def resolved(training: Training) -> Training:
    """Return the training with the precision `auto` replaced by one that is fast here."""
    if training.precision != "auto":
        return training
    precision = "bfloat16" if has_bfloat16() else "float32"
    return training.model_copy(update={"precision": precision})


def warn_of_emulation(training: Training, device_kind: str) -> None:
    """Say so where the processor has no instructions for what was asked for."""
    if training.precision == "bfloat16" and device_kind == "cpu" and not has_bfloat16():
        log.warning(
            "train.precision: this processor emulates bfloat16, which is slower than float32; "
            "auto takes what it has instructions for"
        )


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 matrices by instructions of its own."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return False
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return found is not None and bool(_NATIVE & set(found[1].split()))
