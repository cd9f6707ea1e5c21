"""Which code a step's key depends on, and which edits change it."""

import ast
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn.pipeline import fingerprints
from cnn.pipeline.steps import COMPARE_MODELS, LOAD_DATASET, STEPS, Resolved

CODE = '''"""Trains."""

import numpy as np

RATE = 0.1  # per step


def train(n):
    """Return a number."""
    return [n * RATE, "a"]
'''

# All syntax that Python versions parse or unparse differently.
SYNTAX = '''
import math

NAMES = {"a": 1, **{}}


def describe(values: list[int], *rest: str, sep: str = ", ", **more: float) -> str:
    """Say it."""
    if (n := len(values)) > 1:
        return f"{n:,} {', '.join(str(v) for v in values)} {NAMES['a']!r:>{n}} {{}}" "tail"
    match values:
        case [one] | (one, _):
            return f"{one} " f'{"x" if one else "y"}'
        case {"k": 1, **left}:
            return str(left)
    try:
        values.sort(key=lambda x, /, y=1: x + y)
    except* ValueError:
        raise
    finally:
        with open("a") as f, open("b"):
            pass
'''
# As computed under Python 3.11, 3.12 and 3.13.
SYNTAX_DIGEST = "ebfb3872168084d8"


class Package:
    """A package `cnn` in a temporary folder that tests edit and fingerprint."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        forget()

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text, f"{name} has no {old!r}"
        self.put(name, text.replace(old, new, 1))


def forget() -> None:
    fingerprints.of.cache_clear()
    fingerprints._read.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """An empty package in place of `cnn`."""
    monkeypatch.setattr(fingerprints, "_ROOT", tmp_path / "cnn")
    forget()
    yield Package(tmp_path / "cnn")
    forget()


@pytest.fixture
def copy(package: Package) -> Package:
    """A copy of the real package in place of `cnn`."""
    source = Path(fingerprints.__file__).parents[1]
    shutil.copytree(source, package.root, ignore=shutil.ignore_patterns("__pycache__"))
    return package


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("# per step", "# for each step", False),
        ('"""Trains."""', '"""Trains a network."""', False),
        ('"""Return a number."""', "'''Return\n    a list.\n    '''", False),
        ('    """Return a number."""\n', "", False),
        ('"""Trains."""\n\n', "", False),
        ('[n * RATE, "a"]', "[\n        (n * RATE),\n        'a',\n    ]", False),
        ("\n\n\ndef", "\n\n\n\n\n# more\ndef", False),
        ("0.1", "0.2", True),
        ("n * RATE", "n + RATE", True),
        ('"a"', '"b"', True),
        ("def train(n):", "def train(n=1):", True),
        ("import numpy as np", "import numpy", True),
    ],
)
def test_only_edits_of_code_change_the_fingerprint(
    package: Package, old: str, new: str, counts: bool
) -> None:
    """Comments, docstrings and layout do not count: fixing a typo retrains nothing."""
    package.put("train.py", CODE)
    before = fingerprints.of("cnn.train")
    package.edit("train.py", old, new)
    assert (fingerprints.of("cnn.train") != before) == counts


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
    """At the top or in a function, by absolute or relative name, directly or indirectly."""
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
    """Circular imports are followed once; modules outside of `cnn` do not count."""
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
def test_modules_that_cannot_change_an_artifact_do_not_count(
    package: Package, module: str, counts: bool
) -> None:
    """They are excluded one by one, not by folder, so a new file counts."""
    name = "cnn." + module.removesuffix(".py").replace("/", ".")
    package.put(module, "X = 1")
    package.put("start.py", f"import {name}")
    assert (name in fingerprints.of("cnn.start")) == counts


def test_every_excluded_module_exists() -> None:
    """A module that was moved is not still excluded under its old name."""
    assert [name for name in fingerprints.EXCLUDED if importlib.util.find_spec(name) is None] == []


def test_a_template_counts_with_its_module(package: Package) -> None:
    """The template of the same name is part of its code; another template is not."""
    package.put("body.py", "X = 1")
    package.put("body.html", "<h1>one</h1>")
    before = fingerprints.of("cnn.body")
    package.put("other.html", "<h1>two</h1>")
    assert fingerprints.of("cnn.body") == before
    package.put("body.html", "<h1>two</h1>")
    assert fingerprints.of("cnn.body") != before


def test_a_comparison_reaches_no_code_of_training_or_of_the_report_page() -> None:
    """And loading data reaches only the rooms that it needs."""
    reached = set(fingerprints.of(COMPARE_MODELS.code))
    assert {"cnn.compare.matching", "cnn.report.figures.contact_sheet"} <= reached
    assert not {"cnn.train.fit", "cnn.report.pages.body", "cnn.report.pages.page"} & reached
    loaded = fingerprints.of(LOAD_DATASET.code)
    assert {name.split(".")[1] for name in loaded} == {"data", "formatting"}


def codes() -> dict[str, object]:
    """Return the code component of every step's key."""
    return {step.name: step.key(Resolved({}), []).components["code"] for step in STEPS}


COMPUTING = {"train_model", "evaluate_model", "export_filters", "mine_patches"}


@pytest.mark.parametrize(
    ("file", "old", "new", "steps"),
    [
        ("data/idx.py", "_CHUNK = 1 << 20", "_CHUNK = 1 << 21", {"load_dataset"}),
        ("data/titles.py", "handwritten digits", "digits", {"write_report"}),
        ("train/fit.py", "\n\n\ndef ", "\n\nNEW = 1\n\n\ndef ", {"train_model"}),
        ("train/loop.py", "_EVALUATION_BATCH = 1000", "_EVALUATION_BATCH = 999", {"train_model"}),
        ("train/device.py", "enable_op_determinism()", "disable()", COMPUTING),
        ("explain/mining.py", "\n\n\ndef ", "\n\nNEW = 1\n\n\ndef ", {"mine_patches"}),
        ("report/pages/body.html", "<", "<!-- new --><", {"write_report"}),
        # What writes an artifact counts as much as what computes it.
        ("tables/parquet.py", "[SCHEMA_VERSION]", "[0]", COMPUTING),
        (
            "model_io/archives.py",
            "\n\n\ndef ",
            "\n\nNEW = 1\n\n\ndef ",
            {"train_model", "mine_patches"},
        ),
        ("model_io/exports.py", "indent=2", "indent=4", {"train_model", "mine_patches"}),
        ("train/trained.py", '"training.json"', '"settings.json"', {"train_model"}),
        ("data/dataset.py", "allow_pickle=False", "allow_pickle=True", {s.name for s in STEPS}),
        ("evaluate/evaluation.py", '"{name}.parquet"', '"{name}"', {"evaluate_model"}),
        ("explain/filters.py", '"filters-{item', '"kernels-{item', {"export_filters"}),
        ("explain/patches.py", 'f"{name}-{item', 'f"view-{name}-{item', {"mine_patches"}),
        # Leases, files, checkpoints and errors decide how a result is computed, not what it is.
        ("report/pages/page.html", "<", "<!-- new --><", set()),
        ("config/training.py", "10_000_000", "20_000_000", set()),
        ("store/leases.py", "EXPIRY_SECONDS = 60.0", "EXPIRY_SECONDS = 61.0", set()),
        ("store/store.py", 'b"filterscope"', 'b"something"', set()),
        ("io/atomic.py", 'SUFFIX = ".part"', 'SUFFIX = ".half"', set()),
        ("io/digest_cache.py", "_SETTLED = 2_000_000_000", "_SETTLED = 3_000_000_000", set()),
        ("train/checkpoints.py", "LARGEST_SHARE = 0.02", "LARGEST_SHARE = 0.03", set()),
        ("errors.py", "exit_code = 1", "exit_code = 9", set()),
    ],
)
def test_an_edit_changes_the_keys_of_the_steps_that_use_the_file(
    copy: Package, file: str, old: str, new: str, steps: set[str]
) -> None:
    """A change in the training retrains, for example, and does not load the data again."""
    before = codes()
    copy.edit(file, old, new)
    after = codes()
    assert {name for name in before if after[name] != before[name]} == steps


def test_rewriting_every_comment_and_docstring_changes_no_key(copy: Package) -> None:
    """Nor does reformatting the whole package or adding a module that nothing imports."""
    before = codes()
    for path in copy.root.rglob("*.py"):
        text = ast.unparse(ast.parse(path.read_text()))
        assert text.startswith('"""')
        name = str(path.relative_to(copy.root))
        copy.put(name, f'# new\n"""Other words. {text[3:]}\n# The end.\n')
    copy.put("new_file.py", "X = 1\n")
    assert codes() == before


def test_code_has_the_same_fingerprint_under_every_python() -> None:
    """The expected digest was computed under each supported version."""
    assert fingerprints._digest(ast.parse(SYNTAX), Path("stable.py")) == SYNTAX_DIGEST
