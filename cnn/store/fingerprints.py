"""Fingerprints of the code that decides a step's result.

They cover the modules of `cnn` that the step's work reaches through imports, except
those that cannot change a result. A module counts with its code, not its comments,
docstrings or layout, and with the HTML templates that lie beside it under its name.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cnn

PLUMBING = ("cnn.config", "cnn.errors", "cnn.progress", "cnn.store")
_ROOT = Path(next(iter(cnn.__path__)))
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def of(module: str) -> dict[str, str]:
    """Return the digest of every module that `module` reaches, itself included, by name."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.startswith(PLUMBING):
            continue
        path = _path(name)
        if path is None:
            continue
        tree = ast.parse(path.read_bytes())
        found[name] = _digest(tree, path)
        waiting += _imports(tree)
    return dict(sorted(found.items()))


def _digest(tree: ast.Module, path: Path) -> str:
    sha256 = hashlib.sha256(ast.unparse(_without_docstrings(tree)).encode())
    for template in sorted(path.parent.glob(f"{path.stem}.html")):
        sha256.update(template.read_bytes())
    return sha256.hexdigest()[:16]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield every name below `cnn` that is imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _path(name: str) -> Path | None:
    """Return the file of a module of `cnn`, or None for anything else."""
    first, *rest = name.split(".")
    if first != "cnn" or not rest:
        return None
    stem = _ROOT.joinpath(*rest)
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
