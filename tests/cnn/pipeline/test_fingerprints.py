"""Which code a step's key depends on, and which edits change it."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.pipeline import fingerprints
from cnn.pipeline.steps import COMPARE_MODELS, STEPS
from tests.cnn.pipeline.package import Package, in_place

CODE = '''"""Trains."""

import numpy as np

RATE = 0.1  # per step


def train(n):
    """Return a number."""
    return [n * RATE, "a"]
'''


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Package]:
    """An empty package in the place of `cnn`."""
    with in_place(tmp_path / "cnn") as package:
        yield package


@pytest.fixture
def copy(package: Package) -> Package:
    """A copy of the real package in its place."""
    package.fill()
    return package


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# per step", "# for each step"),
        ('"""Trains."""', '"""Trains a network."""'),
        ('"""Return a number."""', "'''Return\n    a list.\n    '''"),
        ('    """Return a number."""\n', ""),
        ('"""Trains."""\n\n', ""),
        ('[n * RATE, "a"]', "[\n        (n * RATE),\n        'a',\n    ]"),
        ("\n\n\ndef", "\n\n\n\n\n# more\ndef"),
    ],
    ids=["comment", "docstring", "quotes", "no docstring", "no text", "layout", "blank lines"],
)
def test_an_edit_that_says_the_same_changes_nothing(package: Package, old: str, new: str) -> None:
    """A typo mended in a comment or docstring retrains nothing."""
    package.put("train.py", CODE)
    before = fingerprints.of("cnn.train")
    package.edit("train.py", old, new)
    assert fingerprints.of("cnn.train") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1", "0.2"),
        ("n * RATE", "n + RATE"),
        ('"a"', '"b"'),
        ("def train(n):", "def train(n=1):"),
        ("import numpy as np", "import numpy"),
    ],
)
def test_a_change_of_code_changes_the_fingerprint(package: Package, old: str, new: str) -> None:
    """Whatever may change a result counts."""
    package.put("train.py", CODE)
    before = fingerprints.of("cnn.train")
    package.edit("train.py", old, new)
    assert fingerprints.of("cnn.train") != before


@pytest.mark.parametrize(
    "importing",
    [
        "import cnn.lib.maths",
        "import cnn.lib.maths as m",
        "from cnn.lib import maths",
        "from cnn.lib import maths as m",
        "from cnn.lib.maths import RATE",
        "from cnn.lib.maths import *",
        "def f():\n    from cnn.lib import maths\n    return maths",
        "try:\n    import cnn.lib.maths\nexcept ImportError:\n    pass",
        "from cnn import between",
        "from .lib import maths",
        "from . import between",
    ],
)
def test_a_module_counts_however_it_is_imported(package: Package, importing: str) -> None:
    """At the top or in a function, by its name or relative, directly or not."""
    package.put("lib/__init__.py", "")
    package.put("lib/maths.py", "RATE = 1")
    package.put("between.py", "from cnn.lib import maths")
    package.put("start.py", importing)
    before = fingerprints.of("cnn.start")
    assert "cnn.lib.maths" in before
    package.put("lib/maths.py", "RATE = 2")
    after = fingerprints.of("cnn.start")
    assert {name for name in before if before[name] != after[name]} == {"cnn.lib.maths"}


def test_two_modules_that_import_each_other_are_both_counted(package: Package) -> None:
    """A circle of imports ends."""
    package.put("a.py", "import cnn.b")
    package.put("b.py", "import cnn.a\nimport os.path\nimport cnn.nowhere")
    assert list(fingerprints.of("cnn.a")) == ["cnn.a", "cnn.b"]


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("config/run.py", False),
        ("errors.py", False),
        ("progress.py", False),
        ("tables/schemas.py", False),
        ("tables/parquet.py", True),
        ("model_io/exports.py", True),
        ("store/store.py", True),
        ("config/running.py", True),
    ],
)
def test_what_cannot_change_an_artifact_does_not_count(
    package: Package, module: str, counts: bool
) -> None:
    """It is left out module by module, not by folder: a new file counts."""
    name = "cnn." + module.removesuffix(".py").replace("/", ".")
    package.put(module, "X = 1")
    package.put("start.py", f"import {name}")
    assert (name in fingerprints.of("cnn.start")) == counts


def test_what_is_left_out_is_there() -> None:
    """A module that was moved is not left out under its old name."""
    assert {
        name for name in fingerprints.EXCLUDED if importlib.util.find_spec(name) is None
    } == set()


def test_a_template_counts_with_its_module(package: Package) -> None:
    """The page beside the module is code; another page is not its code."""
    package.put("body.py", "X = 1")
    package.put("body.html", "<h1>one</h1>")
    before = fingerprints.of("cnn.body")
    package.put("other.html", "<h1>two</h1>")
    assert fingerprints.of("cnn.body") == before
    package.put("body.html", "<h1>two</h1>")
    assert fingerprints.of("cnn.body") != before


@pytest.mark.usefixtures("copy")
def test_each_step_reaches_its_own_code() -> None:
    """A step's key depends on what its work uses, and on no other step's code."""
    reached = {step.name: set(fingerprints.of(step.code)) for step in STEPS}
    packages = {
        name: {module.split(".")[1] for module in modules} for name, modules in reached.items()
    }
    assert packages["load_dataset"] == {"data", "formatting"}
    assert "report" not in packages["train_model"] | packages["evaluate_model"]
    assert not {"train", "evaluate"} & packages["write_report"]
    assert {"cnn.train.fit", "cnn.train.loop", "cnn.train.networks"} <= reached["train_model"]
    assert {"cnn.model_io.exports", "cnn.model_io.archives"} <= reached["train_model"]
    assert "cnn.explain.mining" in reached["mine_patches"] - reached["export_filters"]
    assert "cnn.data.idx" in reached["load_dataset"]
    for name in ("train_model", "evaluate_model", "export_filters", "mine_patches"):
        assert "cnn.tables.parquet" in reached[name], name
    compared = set(fingerprints.of(COMPARE_MODELS.code))
    assert {"cnn.compare.matching", "cnn.report.figures.contact_sheet"} <= compared
    assert not {"cnn.train.fit", "cnn.report.pages.body", "cnn.report.pages.page"} & compared


@pytest.mark.parametrize(
    ("file", "old", "new", "steps"),
    [
        ("train/loop.py", "import numpy", "import  numpy ", set()),
        ("train/fit.py", "\n\n\ndef ", "\n\nNEW = 1\n\n\ndef ", {"train_model"}),
        ("data/idx.py", "_CHUNK = 1 << 20", "_CHUNK = 1 << 21", {"load_dataset"}),
        ("report/pages/body.html", "<", "<!-- new --><", {"write_report"}),
        ("report/pages/page.html", "<", "<!-- new --><", set()),
        ("config/training.py", "10_000_000", "20_000_000", set()),
    ],
)
def test_an_edit_changes_the_steps_that_use_the_file(
    copy: Package, file: str, old: str, new: str, steps: set[str]
) -> None:
    """A change in the training retrains and does not load the data again."""
    before = {step.name: fingerprints.of(step.code) for step in STEPS}
    copy.edit(file, old, new)
    assert {step.name for step in STEPS if fingerprints.of(step.code) != before[step.name]} == steps


def test_reformatting_the_whole_package_changes_no_fingerprint(copy: Package) -> None:
    """Without one comment and in another layout, every module still says the same."""
    before = {step.name: fingerprints.of(step.code) for step in STEPS}
    for path in copy.root.rglob("*.py"):
        copy.put(str(path.relative_to(copy.root)), ast.unparse(ast.parse(path.read_text())))
    assert {step.name: fingerprints.of(step.code) for step in STEPS} == before
