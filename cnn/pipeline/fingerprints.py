"""Fingerprints of the code that decides a step's result.

They cover the modules of `cnn` that the step's work reaches through imports, those that write
the artifact among them, except the few below that cannot change a byte of it. A module counts
with its code, not its comments, docstrings or layout, and with the HTML template that lies beside
it under its name.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cnn

EXCLUDED = frozenset(
    {
        "cnn.errors",  # what is refused leaves no artifact
        "cnn.progress",
        # Settings are in a key by their values.
        *(f"cnn.config.{name}" for name in ("base", "run", "training", "validation", "values")),
        "cnn.tables.schemas",  # the schemas of a step's own tables are in its key
        # Where bytes are put, which files are known already, what is refused when it is read.
        *(f"cnn.io.{name}" for name in ("atomic", "digest_cache", "strict_json")),
        "cnn.model_io.keras_types",
        "cnn.data.download",  # what is fetched is in a key by its digests
        "cnn.store.refs",
    }
)
_ROOT = Path(next(iter(cnn.__path__)))
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def of(*modules: str) -> dict[str, str]:
    """Return the digest of every module that some modules reach, themselves included, by name."""
    found: dict[str, str] = {}
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if path is None or name in found or name in EXCLUDED:
            continue
        found[name], imports = _read(name, path)
        waiting += imports
    return dict(sorted(found.items()))


@cache
def _read(name: str, path: Path) -> tuple[str, list[str]]:
    """Return a module's digest and the names that it imports."""
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = list(_imports(tree, package))  # before the digest takes the docstrings out
    return _digest(tree, path), imports


def _digest(tree: ast.Module, path: Path) -> str:
    sha256 = hashlib.sha256(repr(_canonical(_without_docstrings(tree))).encode())
    for template in sorted(path.parent.glob(f"{path.stem}.html")):
        sha256.update(template.read_bytes())
    return sha256.hexdigest()[:16]


def _canonical(node: Any) -> Any:
    """Return a syntax tree as tuples, the same under every Python that we support.

    Fields and parts of f-strings that are empty are left out, since versions differ in
    them. `ast.unparse` does not do: from 3.12 on it quotes f-strings differently.
    """
    if isinstance(node, ast.JoinedStr):
        node.values = [part for part in node.values if getattr(part, "value", None) != ""]
    if isinstance(node, ast.AST):
        fields = [(name, _canonical(value)) for name, value in ast.iter_fields(node)]
        return (type(node).__name__, *(item for item in fields if item[1] not in (None, ())))
    if isinstance(node, list):
        return tuple(_canonical(item) for item in node)
    return node if node is None else repr(node)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield every name that is imported anywhere in a module of a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _path(name: str) -> Path | None:
    """Return the file of a module of `cnn`, or None for anything else."""
    first, *rest = name.split(".")
    if first != "cnn" or not rest:
        return None
    stem = _ROOT.joinpath(*rest)
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
