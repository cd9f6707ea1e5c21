"""Which precision a training gets on this processor, and the warning for a slow one."""

from pathlib import Path

import pytest

from cnn.train import precision, recipes


def _cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None) -> None:
    """Describe the processor by this text, or not at all, as on macOS."""
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(precision, "_CPUINFO", path)


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
        (None, "float32"),
    ],
)
def test_auto_takes_what_the_processor_supports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, expected: str
) -> None:
    """On x86 and on Arm, by the names in /proc/cpuinfo; a precision by name stays."""
    _cpuinfo(monkeypatch, tmp_path, text)
    for name in ("auto", "float32", "bfloat16"):
        training = recipes.SPEC.model_copy(update={"precision": name})
        resolved = training.model_copy(update={"precision": expected if name == "auto" else name})
        assert precision.resolved(training) == resolved


@pytest.mark.parametrize(
    ("text", "name", "kind", "warned"),
    [
        ("flags : avx2", "bfloat16", "cpu", True),
        ("flags : avx512_bf16", "bfloat16", "cpu", False),
        ("flags : avx2", "bfloat16", "gpu", False),
        ("flags : avx2", "float32", "cpu", False),
    ],
)
def test_emulation_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    text: str,
    name: str,
    kind: str,
    warned: bool,
) -> None:
    """Only where bfloat16 is chosen and a processor without it computes."""
    _cpuinfo(monkeypatch, tmp_path, text)
    precision.warn_of_emulation(recipes.SPEC.model_copy(update={"precision": name}), kind)
    assert ("train.precision: this processor emulates bfloat16" in caplog.text) == warned
