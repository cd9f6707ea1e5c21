"""Which precision a training gets here, and what is said of one that is slow."""

from pathlib import Path

import pytest

from cnn.config.training import Training
from cnn.train import precision, recipes


def _cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Have the processor be one whose description has this text."""
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(precision, "_CPUINFO", path)


AUTO = recipes.SPEC.model_copy(update={"precision": "auto"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", "bfloat16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bfloat16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f\n", "float32"),
        ("flags\t\t: fpu xavx512_bf16\n", "float32"),
        ("bugs\t\t: avx512_bf16\n", "float32"),
        ("", "float32"),
    ],
)
def test_auto_takes_what_the_processor_has_instructions_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: str
) -> None:
    """On x86 and on Arm, by the names that Linux gives."""
    _cpuinfo(monkeypatch, tmp_path, text)
    assert precision.resolved(AUTO).precision == expected


def test_where_the_processor_is_not_described_auto_is_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on macOS."""
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "missing")
    assert precision.resolved(AUTO).precision == "float32"


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_what_is_asked_for_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str
) -> None:
    """A precision by name is taken whatever the processor has."""
    _cpuinfo(monkeypatch, tmp_path, "flags : avx512_bf16")
    training = recipes.SPEC.model_copy(update={"precision": wanted})
    assert precision.resolved(training) == training


@pytest.mark.parametrize(
    ("text", "wanted", "kind", "said"),
    [
        ("flags : avx2", "bfloat16", "cpu", True),
        ("flags : avx512_bf16", "bfloat16", "cpu", False),
        ("flags : avx2", "bfloat16", "gpu", False),
        ("flags : avx2", "float32", "cpu", False),
    ],
)
def test_emulation_is_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    text: str,
    wanted: str,
    kind: str,
    said: bool,
) -> None:
    """Where bfloat16 is asked for and a processor without it computes."""
    _cpuinfo(monkeypatch, tmp_path, text)
    training: Training = recipes.SPEC.model_copy(update={"precision": wanted})
    precision.warn_of_emulation(training, kind)
    assert ("train.precision: this processor emulates bfloat16" in caplog.text) == said
