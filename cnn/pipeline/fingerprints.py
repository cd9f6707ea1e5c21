"""Fingerprints of the code that decides a step's result.

A fingerprint covers the modules of `cnn` that the step's work reaches through imports, including
those that write the artifact, except the few below that cannot change a byte of it. Of each
module it covers the code without comments, docstrings and layout, and the HTML template of the
same name beside it.
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
        "cnn.errors",  # an error leaves no artifact
        "cnn.progress",
        # A key holds the values of the settings.
        *(f"cnn.config.{name}" for name in ("base", "run", "training", "validation", "values")),
        "cnn.tables.schemas",  # a key holds the schemas of the step's own tables
        # Where bytes are written, which digests are cached, which JSON is refused.
        *(f"cnn.io.{name}" for name in ("atomic", "digest_cache", "strict_json")),
        "cnn.model_io.keras_types",
        "cnn.data.download",  # a key holds the digests of downloaded files
        "cnn.store.refs",
    }
)
_ROOT = Path(next(iter(cnn.__path__)))
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def of(*modules: str) -> dict[str, str]:
    """Return the digest of each module that the given ones reach, themselves included, by name."""
    digests: dict[str, str] = {}
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if path is None or name in digests or name in EXCLUDED:
            continue
        digests[name], imports = _read(name, path)
        waiting += imports
    return dict(sorted(digests.items()))


@cache
def _read(name: str, path: Path) -> tuple[str, list[str]]:
    """Return a module's digest and the names of the modules that it may import."""
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = list(_imports(tree, package))  # before _digest removes the docstrings
    return _digest(tree, path), imports


def _digest(tree: ast.Module, path: Path) -> str:
    sha256 = hashlib.sha256(repr(_canonical(_without_docstrings(tree))).encode())
    for template in sorted(path.parent.glob(f"{path.stem}.html")):
        sha256.update(template.read_bytes())
    return sha256.hexdigest()[:16]


def _canonical(node: Any) -> Any:
    """Return a syntax tree as tuples that are the same under every supported Python version.

    Empty fields and empty parts of f-strings are left out, because versions differ in them.
    `ast.unparse` would not do: Python 3.12 changed how it quotes f-strings.
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
    """Yield every name that a module of a package imports, at any level of its code."""
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
