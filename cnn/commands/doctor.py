"""Checks of the machine: package versions, device, data sources and store."""

import os
import platform
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

from cnn.config.run import RuntimeConfig
from cnn.data import published
from cnn.errors import FilterscopeError
from cnn.store.store import Store

_PACKAGES = ("prefect", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "matplotlib")
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")
_FREE_BYTES = 1 << 30  # a run with MNIST takes about a tenth
_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Check:
    """The result of one check; `ok` is False if it would stop a run."""

    name: str
    ok: bool
    detail: str


def checks(store: Store) -> Iterator[Check]:
    """Yield the result of every check; imports TensorFlow."""
    yield Check("python", True, platform.python_version())
    for name in _PACKAGES:
        yield Check(name, True, version(name))
    yield _device()
    yield Check("instruction set", True, ", ".join(_instructions()) or "unknown")
    yield from _sources(store)
    yield _store(store)


def _device() -> Check:
    from cnn.train import device

    try:
        found = device.prepare(RuntimeConfig())
    except FilterscopeError as error:
        return Check("device", False, str(error))
    detail = f"{found.kind}: {found.name}, {found.threads} threads, {os.cpu_count()} CPU cores"
    return Check("device", True, detail)


def _instructions() -> list[str]:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as stream:
            lines = [line for line in stream if line.startswith(("flags", "Features"))]
    except OSError:
        return []
    present = set(lines[0].split()) if lines else set()
    return [name for name in _INSTRUCTIONS if name in present]


def _sources(store: Store) -> Iterator[Check]:
    missing = []
    for name, known in published.SETS.items():
        if published.is_fetched(name, store.downloads):
            yield Check(
                f"data {name}", True, f"downloaded and verified in {store.downloads / name}"
            )
        else:
            missing += [(name, address) for address in known.addresses]
    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = list(pool.map(_answer, (address for _, address in missing)))
    for (name, address), answer in zip(missing, answers, strict=True):
        yield Check(f"data {name}", answer == "reached", f"{address} {answer}")
    yield Check("data digits", True, "ships with scikit-learn")


def _answer(address: str) -> str:
    try:
        url = address + published.FILE_NAMES["test-labels"]
        answer = httpx.head(url, timeout=_TIMEOUT_SECONDS, follow_redirects=True)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        return f"answers HTTP {error.response.status_code}"
    except httpx.HTTPError as error:
        return f"cannot be reached ({str(error) or type(error).__name__})"
    return "reached"


def _store(store: Store) -> Check:
    try:
        store.ensure_writable()
    except FilterscopeError as error:
        return Check("store", False, str(error))
    free = shutil.disk_usage(store.root).free
    return Check(
        "store", free >= _FREE_BYTES, f"{store.root} is writable, {free / 1e9:.1f} GB free"
    )
