"""No module of ours unpickles or evaluates what a file says."""

import ast

import pytest

from tests import ROOT

FORBIDDEN_MODULES = {"pickle", "marshal", "joblib", "dill", "cloudpickle", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "load_weights"}


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            dotted = isinstance(function, ast.Attribute)
            name = function.attr if dotted else getattr(function, "id", "")  # type: ignore[attr-defined]
            found.append((name, node))
    return found


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def faults(source: str) -> list[str]:
    """Return what in a module could run what a file says."""
    tree = ast.parse(source)
    found = sorted(_imports(tree) & FORBIDDEN_MODULES)
    for name, call in _calls(tree):
        text = ast.unparse(call)
        bare = isinstance(call.func, ast.Name)
        if (name in FORBIDDEN_CALLS and (bare or name not in ("compile", "eval", "exec"))) or (
            text.startswith(("np.load(", "numpy.load(")) and "allow_pickle=False" not in text
        ):
            found.append(text)
    return found


@pytest.mark.parametrize("part", ["flows", "tasks", "cnn"])
def test_nothing_of_ours_unpickles(part: str) -> None:
    """No module imports a pickling library, evaluates text or loads objects with NumPy."""
    sources = sorted((ROOT / part).rglob("*.py"))
    assert sources
    assert {str(path): found for path in sources if (found := faults(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import yaml.reader",
        "eval('1')",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
    ],
)
def test_the_search_for_unpickling_finds_it(source: str) -> None:
    """The test above can fail."""
    assert faults(source)
