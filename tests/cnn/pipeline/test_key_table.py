"""Which setting enters which step's key: one row for each setting, written by hand."""

import gzip
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BeforeValidator, Field

from cnn.config import run as config
from cnn.config import validation
from cnn.config.base import OmitFromKeyAt, Settings, keyed
from cnn.config.run import EvaluateConfig, RunConfig
from cnn.config.values import Int
from cnn.data import idx
from cnn.pipeline.steps import COMPARE_MODELS, EVALUATE_MODEL, STEPS, Baseline
from cnn.store.keys import Key
from cnn.store.refs import Kind, Ref

DATA, TRAIN, EVALUATE, MINE, REPORT = (
    "load_dataset",
    "train_model",
    "evaluate_model",
    "mine_patches",
    "write_report",
)
KINDS: tuple[Kind, ...] = ("dataset", "model", "evaluation", "filters", "patches", "report")


@dataclass(frozen=True)
class Row:
    """A setting's steps: those whose own key changes when the setting alone goes from old to new.

    base: which settings stand beside it: "digits", "idx" (a folder of IDX files with two
    columns of labels), "pictures" (a folder of pictures), "sgd" (digits, with that optimizer),
    "processes" or "dask" (digits, mined by those).
    """

    old: Any
    new: Any
    steps: tuple[str, ...]
    base: str = "digits"


TABLE: dict[str, Row] = {
    "data.source": Row("digits", "mnist", (DATA,)),
    "data.path": Row("IDX", "COPY", (), "idx"),
    "data.label_column": Row(0, 1, (DATA,), "idx"),
    "data.transpose": Row(None, True, (DATA,), "idx"),
    "data.image_size": Row([8, 8], [9, 8], (DATA,), "pictures"),
    "data.channels": Row(None, 3, (DATA,), "pictures"),
    "data.split_seed": Row(0, 1, (DATA,)),
    "data.validation_fraction": Row(0.1, 0.2, (DATA,)),
    "train.recipe": Row("fast", "spec", (TRAIN,)),
    "train.seed": Row(0, 1, (TRAIN,)),
    "train.steps": Row(None, 301, (TRAIN,)),
    "train.batch_size": Row(None, 95, (TRAIN,)),
    "train.optimizer": Row(None, "sgd", (TRAIN,)),
    "train.momentum": Row(None, 0.5, (TRAIN,), "sgd"),
    "train.weight_decay": Row(None, 0.1, (TRAIN,)),
    "train.label_smoothing": Row(None, 0.2, (TRAIN,)),
    "train.ema_decay": Row(None, 0.9, (TRAIN,)),
    "train.augment_shear": Row(None, 5.0, (TRAIN,)),
    "train.precision": Row("float32", "bfloat16", (TRAIN,)),
    "train.learning_rate": Row(None, 0.002, (TRAIN,)),
    "train.schedule": Row(None, "cosine", (TRAIN,)),
    "train.warmup_fraction": Row(None, 0.1, (TRAIN,)),
    "train.beta1": Row(None, 0.9, (TRAIN,)),
    "train.beta2": Row(None, 0.99, (TRAIN,)),
    "train.epsilon": Row(None, 1e-7, (TRAIN,)),
    "train.dropout": Row(None, 0.4, (TRAIN,)),
    "train.augment_shift": Row(None, 1.0, (TRAIN,)),
    "train.augment_rotation": Row(None, 5.0, (TRAIN,)),
    "train.augment_scale": Row(None, 0.1, (TRAIN,)),
    "train.conv1_filters": Row(None, 24, (TRAIN,)),
    "train.conv1_kernel": Row(None, 11, (TRAIN,)),
    "train.conv1_stride": Row(None, 1, (TRAIN,)),
    "train.conv2_filters": Row(None, 32, (TRAIN,)),
    "train.conv2_kernel": Row(None, 3, (TRAIN,)),
    "train.dense1_units": Row(None, 512, (TRAIN,)),
    "train.conv_bias": Row(None, False, (TRAIN,)),
    "train.logits_activation": Row(None, "relu", (TRAIN,)),
    "train.weight_sd": Row(None, 0.1, (TRAIN,)),
    "train.initial_bias": Row(None, 0.0, (TRAIN,)),
    "train.log_every": Row(None, 50, (TRAIN,)),
    "train.log_split": Row(None, "test", (TRAIN,)),
    "evaluate.calibration_bins": Row(15, 10, (EVALUATE,)),
    "explain.patches_per_filter": Row(12, 9, (MINE,)),
    "explain.split": Row("test", "train", (MINE,)),
    "explain.one_per_image": Row(False, True, (MINE,)),
    "explain.suppression_radius": Row(0, 2, (MINE,)),
    "report.mistakes": Row(24, 12, (REPORT,)),
    "gate.track": Row(None, "nightly", ()),
    "gate.min_accuracy": Row(0.9, 0.8, ()),
    "gate.min_recall": Row(0.7, 0.6, ()),
    "gate.max_accuracy_drop": Row(0.005, 0.01, ()),
    "gate.max_recall_drop": Row(0.05, 0.1, ()),
    "gate.max_megabytes": Row(None, 10.0, ()),
    "gate.max_milliseconds": Row(None, 10.0, ()),
    "gate.fail": Row(False, True, ()),
    "runtime.device": Row("auto", "cpu", ()),
    "runtime.threads": Row(None, 1, ()),
    "runtime.checkpoint_seconds": Row(10.0, 60.0, ()),
    "runtime.task_runner": Row("none", "processes", ()),
    "runtime.workers": Row(None, 3, (), "processes"),
    "runtime.dask_address": Row(None, "tcp://elsewhere:8786", (), "dask"),
}
# Through their inputs: whose keys change when what another step made changes.
READERS: dict[str, set[str]] = {
    "dataset": {TRAIN, EVALUATE, "export_filters", MINE, REPORT},
    "model": {EVALUATE, "export_filters", MINE, REPORT},
    "evaluation": {REPORT},
    "filters": {REPORT},
    "patches": {REPORT},
    "report": set(),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of IDX files, a copy of it, and a folder of pictures."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    idx_folder, pictures = root / "idx", root / "pictures"
    idx_folder.mkdir()
    for part, n in (("train", 12), ("t10k", 6)):
        images, labels = rng.integers(0, 255, (n, 28, 28), np.uint8), np.arange(n) % 3
        both = np.stack([labels, labels], axis=1).astype(np.uint8)
        idx.write(idx_folder / f"{part}-images-idx3-ubyte", images)
        idx.write(idx_folder / f"{part}-labels-idx2-ubyte", both)
    for i in range(8):
        folder = pictures / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i}.png")
    shutil.copytree(idx_folder, root / "copy")
    return {"IDX": idx_folder, "COPY": root / "copy", "PICTURES": pictures}


def settings(
    folders: Mapping[str, Path], base: str, name: str = "", value: Any = None
) -> RunConfig:
    """Return the settings of a base with one of them set."""
    values: dict[str, Any] = {
        "digits": {"data": {"source": "digits"}},
        "idx": {"data": {"source": "folder", "path": str(folders["IDX"]), "label_column": 0}},
        "pictures": {"data": {"source": "folder", "path": str(folders["PICTURES"])}},
        "sgd": {"data": {"source": "digits"}, "train": {"optimizer": "sgd"}},
        "processes": {"data": {"source": "digits"}, "runtime": {"task_runner": "processes"}},
        "dask": {"data": {"source": "digits"}, "runtime": {"task_runner": "dask"}},
    }[base]
    if name:
        section, _, field = name.partition(".")
        is_folder = isinstance(value, str) and value in folders
        given = str(folders[value]) if is_folder else value
        values.setdefault(section, {})[field] = given
    return config.validate(values)


def keys(values: RunConfig, changed: str = "") -> dict[str, Key]:
    """Return the key of every step, its inputs being the same, but for one kind."""
    inputs = {kind: ("c" if kind == changed else "a") * 64 for kind in KINDS}
    found = {}
    for step in STEPS:
        resolved = step.resolve(step.slice(values), Path("/nowhere"))
        refs = [Ref(kind=kind, key="b" * 64, digest=inputs[kind]) for kind in step.reads]
        found[step.name] = step.key(resolved, refs)
    return found


def differing(old: Mapping[str, Key], new: Mapping[str, Key]) -> set[str]:
    return {str(name) for name in old if old[name].digest != new[name].digest}


def test_every_setting_has_its_row() -> None:
    """A new setting is not taken into keys, or left out of them, by accident."""
    known = {name for name, _ in validation.fields(RunConfig)}
    assert not known - set(TABLE), (
        f"TABLE in {Path(__file__).name} has no row for {sorted(known - set(TABLE))}: add for each "
        "an old value, a new one, and the steps whose own keys change; a setting that came later "
        "is declared with Annotated[..., Neutral(value)]"
    )
    assert not set(TABLE) - known, (
        f"TABLE has rows for {sorted(set(TABLE) - known)}, which are no settings any more: remove "
        "them"
    )


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_changes_the_keys_of_its_steps_and_no_others(
    folders: dict[str, Path], name: str
) -> None:
    """The steps that use it, as the table says."""
    row = TABLE[name]
    old, new = (settings(folders, row.base, name, value) for value in (row.old, row.new))
    assert old != new
    assert differing(keys(old), keys(new)) == set(row.steps), name


def test_every_step_is_in_the_table_or_has_no_settings() -> None:
    """Only export_filters is the same whatever is set."""
    named = {step for row in TABLE.values() for step in row.steps}
    assert {step.name for step in STEPS} - named == {"export_filters"}


@pytest.mark.parametrize("kind", READERS)
def test_what_a_step_made_changes_the_keys_of_those_that_read_it(
    folders: dict[str, Path], kind: str
) -> None:
    """Keys follow the content of inputs, not the settings that led to it."""
    values = settings(folders, "digits")
    assert differing(keys(values), keys(values, changed=kind)) == READERS[kind]


def test_nothing_of_runtime_and_no_path_stands_in_a_key(folders: dict[str, Path]) -> None:
    """Where and how is computed is recorded elsewhere."""
    for base in ("digits", "idx", "pictures"):
        for key in keys(settings(folders, base)).values():
            text = repr(key.components)
            assert "runtime" not in text
            assert str(folders["IDX"].parent) not in text
            assert "recipe" not in repr(key.components["settings"])


def test_the_content_of_a_data_folder_is_in_the_key_and_its_place_is_not(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Copied, or compressed, it is the same data set; with one pixel changed, another."""
    before = keys(settings(folders, "idx"))
    copy = shutil.copytree(folders["IDX"], tmp_path / "moved")
    for path in sorted(copy.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    moved = {**folders, "IDX": copy}
    assert differing(before, keys(settings(moved, "idx"))) == set()
    images = next(copy.glob("t10k-images*"))
    content = bytearray(gzip.decompress(images.read_bytes()))
    content[-1] ^= 1
    images.write_bytes(gzip.compress(bytes(content)))
    assert differing(before, keys(settings(moved, "idx"))) == {DATA}


def test_a_recipes_name_does_not_matter(folders: dict[str, Path]) -> None:
    """Only what it resolves to does: spec is notebook with two slips mended and one habit."""
    mended = {"conv_bias": True, "logits_activation": "none", "log_split": "validation"}
    found = [
        keys(config.validate({"data": {"source": "digits"}, "train": train}))
        for train in ({"recipe": "spec"}, {"recipe": "notebook", **mended})
    ]
    assert differing(*found) == set()


@pytest.mark.parametrize(
    ("section", "name", "values"),
    [
        ("train", "seed", (3, 3.0, "3", "3.0")),
        ("train", "batch_size", (64, 64.0, "64")),
        ("train", "learning_rate", (1, 1.0, "1", "1.0", "1e0")),
        ("train", "dropout", (0.25, "0.25", "2.5e-1")),
        ("train", "conv_bias", (True, "true")),
        ("train", "initial_bias", (0, 0.0, "0")),
        ("evaluate", "calibration_bins", (7, 7.0, "7")),
        ("data", "validation_fraction", (0, 0.0, "0")),
    ],
)
def test_however_a_number_is_written_it_is_one_number(
    section: str, name: str, values: tuple[Any, ...]
) -> None:
    """From the command line, a file or a form: the same value gives the same keys."""
    data = {"source": "digits"}
    first, *others = (
        keys(
            config.validate(
                {"data": data, section: {**(data if section == "data" else {}), name: value}}
            )
        )
        for value in values
    )
    for other in others:
        assert differing(first, other) == set()


def evaluation_key(values: Settings) -> str:
    resolved = EVALUATE_MODEL.resolve(values, Path())
    return EVALUATE_MODEL.key(resolved, []).digest


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Later(EvaluateConfig):
    """The settings of a later version."""

    whole: Annotated[Int, OmitFromKeyAt(0)] = Field(0, ge=0)
    number: Annotated[float, OmitFromKeyAt(0.5)] = 0.5
    flag: Annotated[bool, OmitFromKeyAt(False)] = False
    perhaps: Annotated[int | None, OmitFromKeyAt(None)] = None
    pair: Annotated[tuple[int, int], BeforeValidator(_pair), OmitFromKeyAt((28, 28))] = (28, 28)
    word: Annotated[str, OmitFromKeyAt("none")] = "none"


def test_a_new_setting_at_its_neutral_value_is_in_no_key() -> None:
    """Artifacts that were made before the setting existed are still found."""
    assert keyed(Later()) == keyed(EvaluateConfig())
    assert evaluation_key(Later()) == evaluation_key(EvaluateConfig())


@pytest.mark.parametrize(
    "change",
    [
        {"whole": 1},
        {"number": 0.25},
        {"number": 0.0},
        {"flag": True},
        {"perhaps": 0},
        {"pair": [28, 29]},
        {"word": ""},
    ],
)
def test_a_new_setting_at_another_value_is_in_the_key(change: dict[str, Any]) -> None:
    """It decides the result then; values that look like nothing count too."""
    values = Later.model_validate(change)
    (name,) = set(keyed(values)) - set(keyed(EvaluateConfig()))
    assert [name] == list(change)
    assert evaluation_key(values) != evaluation_key(EvaluateConfig())


class Changed(EvaluateConfig):
    """The settings of a version with another default."""

    calibration_bins: Int = 10


class Moved(EvaluateConfig):
    """The settings of a version whose default moved away from the neutral value."""

    whole: Annotated[Int, OmitFromKeyAt(0)] = 3


def test_a_changed_default_changes_the_key() -> None:
    """What is asked for by silence is another thing then; the neutral value stays what it was."""
    assert evaluation_key(Changed()) != evaluation_key(EvaluateConfig())
    assert evaluation_key(Changed(calibration_bins=15)) == evaluation_key(EvaluateConfig())
    assert evaluation_key(Moved()) != evaluation_key(EvaluateConfig())
    assert evaluation_key(Moved(whole=0)) == evaluation_key(EvaluateConfig())


def test_no_neutral_value_is_hidden_in_a_type() -> None:
    """It is looked for at the field itself: inside of `X | None` it would do nothing."""
    for name, field in (*validation.fields(RunConfig), *validation.fields(config.Training)):
        assert "Neutral(" not in repr(field.annotation), name


def test_settings_stand_in_a_key_by_their_dotted_names() -> None:
    """Reasons name them as the command line does."""
    found = keys(config.validate({"data": {"source": "digits"}}))
    names = {name for key in found.values() for name in key.components["settings"]}
    known = {name for name, _ in validation.fields(RunConfig)}
    own = {"data.name", "data.transposed", "data.payloads"}
    assert names - own <= known
    assert {"train.learning_rate", "explain.split", "data.split_seed"} <= names


def comparison_key(**changes: Any) -> str:
    values = {"run": "one", "folder": Path("/one"), "digest": "a" * 64, "class_names": ("a", "b")}
    return COMPARE_MODELS.key(
        COMPARE_MODELS.resolve(Baseline(**{**values, **changes}), Path()), []
    ).digest


def test_a_comparison_is_another_one_where_the_promoted_model_is() -> None:
    """By what the model says, not by the run that it was promoted for, nor by its place."""
    assert comparison_key(run="two", folder=Path("/two")) == comparison_key()
    assert comparison_key(digest="b" * 64) != comparison_key()
    assert comparison_key(class_names=("b", "a")) != comparison_key()
