"""Keys: what a step was asked to compute, and how two keys differ."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cnn.store.refs import Kind


@dataclass(frozen=True)
class Key:
    """Everything that decides an artifact's content: its kind and its components."""

    kind: Kind
    components: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the components, 64 hex digits; raises ValueError for NaN or infinity."""
        text = json.dumps(self.components, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def precision(self) -> str:
        """Number format in which the step computes: float32 unless its settings say otherwise."""
        return str(self.components.get("settings", {}).get("train.precision", "float32"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the differences between two keys' components as phrases, settings first."""
    return [
        *_settings(old.get("settings", {}), new.get("settings", {})),
        *(f"input {kind} changed" for kind in _changed(old, new, "inputs")),
        *(f"code {_file(name)} changed" for name in _changed(old, new, "code")),
        *(f"table {name} changed" for name in _changed(old, new, "tables")),
        *_versions(old.get("versions", {}), new.get("versions", {})),
    ]


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) or isinstance(after, dict):
            if before != after:
                yield f"{name} changed"
        elif name not in new:
            yield f"{name} removed (was {_text(before)})"
        elif name not in old:
            yield f"{name} added ({_text(after)})"
        elif before != after:
            yield f"{name} {_text(before)} -> {_text(after)}"


def _versions(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name)} -> {new.get(name)}"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], part: str) -> list[str]:
    before, after = old.get(part, {}), new.get(part, {})
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


def _file(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
