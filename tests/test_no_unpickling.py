"""No module of the product unpickles or evaluates the content of a file."""

import ast

import pytest

from tests import ROOT

FORBIDDEN_MODULES = {"pickle", "marshal", "joblib", "dill", "cloudpickle", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "load_weights"}


def calls(tree: ast.AST) -> list[tuple[str, bool, str]]:
    """Return each call: the function's last name, whether it has no dots, and the code."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = ((ast.unparse(node.func).rpartition("."), ast.unparse(node)) for node in nodes)
    return [(name, not dot, text) for (_, dot, name), text in names]


def imports(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def faults(source: str) -> list[str]:
    """Return the imports and calls of a module that could run code from a file."""
    tree = ast.parse(source)
    found = sorted(imports(tree) & FORBIDDEN_MODULES)
    for name, bare, text in calls(tree):
        if (name in FORBIDDEN_CALLS and (bare or name not in ("compile", "eval", "exec"))) or (
            text.startswith(("np.load(", "numpy.load(")) and "allow_pickle=False" not in text
        ):
            found.append(text)
    return found


@pytest.mark.parametrize("package", ["flows", "tasks", "cnn"])
def test_no_module_unpickles_or_evaluates_content(package: str) -> None:
    """None imports a pickling library, evaluates text or loads objects with NumPy."""
    sources = sorted((ROOT / package).rglob("*.py"))
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
def test_each_kind_of_fault_is_found(source: str) -> None:
    """So the test above can fail."""
    assert faults(source)
