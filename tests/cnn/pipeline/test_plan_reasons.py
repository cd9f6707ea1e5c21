"""Why a step runs, as `plan` prints it: edits of the code, settings, versions, damage."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnn.pipeline import steps
from cnn.pipeline.steps import TRAIN_MODEL
from cnn.store import keys
from cnn.store.manifests import Headline
from cnn.store.store import Store
from flows import cli
from tests.cnn.pipeline.package import Package, in_place
from tests.cnn.pipeline.test_planning import run, settings

Planned = dict[str, tuple[str, str]]
DEPENDING = ["evaluate_model", "export_filters", "mine_patches", "write_report"]


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Package]:
    """A copy of the real package in its place."""
    with in_place(tmp_path / "cnn") as package:
        package.fill()
        yield package


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which every step of the default settings is cached."""
    root = tmp_path_factory.mktemp("made") / "artifacts"
    run(Store(root), settings())
    return root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    """A store of the test's own with the same artifacts."""
    return Store(shutil.copytree(made, tmp_path / "artifacts"))


@pytest.fixture
def plan(store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., Planned]:
    """Call `filterscope plan`; returns each step's state and reason."""

    def call(*words: str) -> Planned:
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main(
                ["plan", "--store", str(store.root), "--data.source", "digits", "--json", *words]
            )
        rows = json.loads(capsys.readouterr().out)
        return {row["step"]: (row["state"], row["why"]) for row in rows}

    return call


def running(planned: Planned) -> dict[str, str]:
    return {name: why for name, (state, why) in planned.items() if state == "run"}


def depending(planned: Planned) -> list[str]:
    return [name for name, (state, _) in planned.items() if state == "depends"]


def test_comments_and_docstrings_anywhere_run_nothing(
    copy: Package, plan: Callable[..., Planned]
) -> None:
    """Every file of the package gets a comment at both ends and another docstring."""
    for path in sorted(copy.root.rglob("*.py")):
        text = path.read_text()
        assert text.startswith('"""')
        path.write_text(f'# new\n"""Other words. {text[3:]}\n# The end.\n')
    copy.put("new_file.py", "X = 1\n")
    planned = plan()
    assert {state for state, _ in planned.values()} == {"cached"}
    assert all(
        why.startswith("made 2") and why.endswith(" UTC, verified") for _, why in planned.values()
    )


def test_a_constant_of_the_loop_trains_anew_and_loads_nothing(
    copy: Package, plan: Callable[..., Planned]
) -> None:
    """The file is named; what reads the model waits for it."""
    copy.edit("train/loop.py", "_EVALUATION_BATCH = 1000", "_EVALUATION_BATCH = 999")
    planned = plan()
    assert planned["load_dataset"][0] == "cached"
    assert running(planned) == {"train_model": "code cnn/train/loop.py changed"}
    assert depending(planned) == DEPENDING
    assert {planned[name][1] for name in DEPENDING} == {"depends on train_model"}
    copy.edit("train/loop.py", "_EVALUATION_BATCH = 999", "_EVALUATION_BATCH = 1000")
    assert running(plan()) == {}, "what was made before the edit is still there"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("store/leases.py", "EXPIRY_SECONDS = 60.0", "EXPIRY_SECONDS = 61.0"),
        ("store/store.py", 'b"filterscope"', 'b"something"'),
        ("io/atomic.py", 'SUFFIX = ".part"', 'SUFFIX = ".half"'),
        ("io/digest_cache.py", "_SETTLED = 2_000_000_000", "_SETTLED = 3_000_000_000"),
        ("train/checkpoints.py", "LARGEST_SHARE = 0.02", "LARGEST_SHARE = 0.03"),
        ("errors.py", "exit_code = 1", "exit_code = 9"),
    ],
)
def test_what_cannot_change_a_result_runs_nothing(
    copy: Package, plan: Callable[..., Planned], file: str, old: str, new: str
) -> None:
    """Leases, files, checkpoints and errors decide how it is computed, not what."""
    copy.edit(file, old, new)
    planned = plan()
    assert {state for state, _ in planned.values()} == {"cached"}


@pytest.mark.parametrize(
    ("file", "old", "new", "step"),
    [
        ("model_io/exports.py", "indent=2", "indent=4", "train_model"),
        ("train/trained.py", '"training.json"', '"settings.json"', "train_model"),
        ("train/device.py", "enable_op_determinism()", "disable()", "train_model"),
        ("data/dataset.py", "allow_pickle=False", "allow_pickle=True", "load_dataset"),
        ("evaluate/evaluation.py", '"{name}.parquet"', '"{name}"', "evaluate_model"),
        ("explain/filters.py", '"filters-{item', '"kernels-{item', "export_filters"),
        ("explain/patches.py", 'f"{name}-{item', 'f"view-{name}-{item', "mine_patches"),
    ],
)
def test_a_change_of_what_writes_an_artifact_runs_its_step(
    copy: Package, plan: Callable[..., Planned], file: str, old: str, new: str, step: str
) -> None:
    """Formats of files are part of an artifact as much as its numbers."""
    copy.edit(file, old, new)
    assert f"code cnn/{file} changed" in running(plan())[step]


def test_two_files_and_a_setting_are_named_together(
    copy: Package, plan: Callable[..., Planned]
) -> None:
    """Settings first, then code, in one line."""
    copy.edit("train/loop.py", "_EVALUATION_BATCH = 1000", "_EVALUATION_BATCH = 999")
    copy.edit("train/schedule.py", "\n\n\ndef ", "\n\nNEW = 1\n\n\ndef ")
    assert running(plan("--train.learning_rate", "0.002")) == {
        "train_model": "train.learning_rate 0.008 -> 0.002; code cnn/train/loop.py changed; "
        "code cnn/train/schedule.py changed"
    }


def test_old_and_new_value_of_a_setting_are_named(plan: Callable[..., Planned]) -> None:
    """As they are written in a settings file."""
    assert running(plan("--train.learning_rate", "0.002")) == {
        "train_model": "train.learning_rate 0.008 -> 0.002"
    }
    assert running(plan("--train.conv_bias", "false", "--train.log_split", "test")) == {
        "train_model": "train.conv_bias true -> false; train.log_split validation -> test"
    }
    planned = plan("--explain.split", "train", "--evaluate.calibration_bins", "9")
    assert running(planned) == {
        "evaluate_model": "evaluate.calibration_bins 15 -> 9",
        "mine_patches": "explain.split test -> train",
    }
    assert planned["write_report"] == ("depends", "depends on evaluate_model")


def test_versions_and_tables_are_named(
    plan: Callable[..., Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minor version of Keras, the columns of a table."""
    real = steps.version
    monkeypatch.setattr(steps, "version", lambda name: "9.8.7" if name == "keras" else real(name))
    ours = ".".join(real("keras").split(".")[:2])
    assert running(plan()) == {"train_model": f"keras {ours} -> 9.8"}
    monkeypatch.undo()
    monkeypatch.setattr(steps.schemas, "digest", lambda name: "new")
    assert running(plan())["train_model"] == "table history changed"


def test_an_input_that_changed_is_named(store: Store, plan: Callable[..., Planned]) -> None:
    """Where an earlier step made something else, the kind of what is read is the reason."""
    ref = next(store.manifests("dataset")).ref
    path = store.open(ref) / "result.txt"
    (found,) = store.manifests("dataset")

    def produce(folder: Path) -> Headline:
        (folder / "result.txt").write_text("other images")
        return {}

    path.write_text("damaged")
    store.publish(keys.Key("dataset", found.components), (), produce)
    assert running(plan()) == {"train_model": "input dataset changed"}


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (lambda folder: (folder / "result.txt").unlink(), "artifact result.txt is missing"),
    "cut off": (
        lambda folder: (folder / "result.txt").write_text("1234"),
        "artifact result.txt has 4 bytes, not 64",
    ),
    "replaced": (
        lambda folder: (folder / "result.txt").write_text("x" * 64),
        "artifact result.txt was changed",
    ),
    "added": (lambda folder: (folder / "x").touch(), "artifact x does not belong there"),
    "manifest": (
        lambda folder: (folder / "manifest.json").write_text("{}"),
        "artifact manifest.json is missing or damaged",
    ),
    "emptied": (
        lambda folder: [path.unlink() for path in folder.iterdir()],
        "artifact manifest.json is missing or damaged",
    ),
}


@pytest.mark.parametrize("kind", ["dataset", "model", "evaluation", "filters", "patches", "report"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_of_every_kind_of_artifact_is_the_reason(
    store: Store, plan: Callable[..., Planned], kind: Any, damage: str
) -> None:
    """The file is named; only that step runs, and what reads it waits."""
    change, wanted = DAMAGE[damage]
    change(store.open(next(store.manifests(kind)).ref))
    planned = plan()
    (step,) = [step for step in steps.STEPS if step.makes == kind]
    assert running(planned) == {step.name: wanted}
    waiting = [s.name for s in steps.STEPS if s.name in steps.with_followers({step.name})]
    assert depending(planned) == waiting[1:]


def publish(store: Store, **values: Any) -> None:
    """Publish a model of the data that is there, made with other settings."""
    (dataset,) = store.manifests("dataset")
    chosen = settings(train=values).train
    key = TRAIN_MODEL.key(TRAIN_MODEL.resolve(chosen, Path()), [dataset.ref])

    def produce(folder: Path) -> Headline:
        (folder / "result.txt").write_text(key.digest)
        return {}

    store.publish(key, (dataset.ref,), produce)


def test_the_nearest_earlier_artifact_is_the_one_with_fewest_differences(
    store: Store, plan: Callable[..., Planned]
) -> None:
    """However old it is; of two that are as near, the newer."""
    publish(store, seed=5, steps=9)
    publish(store, seed=7, steps=8, dropout=0.1)
    assert running(plan("--train.seed", "5", "--train.steps", "10")) == {
        "train_model": "train.steps 9 -> 10"
    }
    publish(store, seed=6, steps=10)
    assert running(plan("--train.seed", "5", "--train.steps", "10")) == {
        "train_model": "train.seed 6 -> 5"
    }


def test_a_reason_with_many_parts_stays_one_line(
    copy: Package, plan: Callable[..., Planned]
) -> None:
    """Six are named, and that there are more."""
    for path in sorted(copy.root.glob("train/*.py")):
        copy.put(str(path.relative_to(copy.root)), path.read_text() + "\nNEW = 1\n")
    why = running(plan("--train.recipe", "best"))["train_model"]
    assert why.count("; ") == 6
    assert why.endswith("; ...")
    assert "\n" not in why
