"""Which setting is part of which step's key: a table with one row for each setting."""

import copy
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
READERS: dict[Kind, set[str]] = {
    "dataset": {TRAIN, EVALUATE, "export_filters", MINE, REPORT},
    "model": {EVALUATE, "export_filters", MINE, REPORT},
    "evaluation": {REPORT},
    "filters": {REPORT},
    "patches": {REPORT},
    "report": set(),
}


@dataclass(frozen=True)
class Row:
    """The steps whose own key changes when a setting changes from old to new.

    base: the other settings, see BASES. A value that names a folder stands for that folder.
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
    "data.image_size": Row([8, 8], [9, 8], (DATA,), "images"),
    "data.channels": Row(None, 3, (DATA,), "images"),
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of IDX files with two label columns, a copy of it, and a folder of images."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    idx_folder, image_folder = root / "idx", root / "images"
    idx_folder.mkdir()
    for part, n in (("train", 12), ("t10k", 6)):
        images, labels = rng.integers(0, 255, (n, 28, 28), np.uint8), np.arange(n) % 3
        both = np.stack([labels, labels], axis=1).astype(np.uint8)
        idx.write(idx_folder / f"{part}-images-idx3-ubyte", images)
        idx.write(idx_folder / f"{part}-labels-idx2-ubyte", both)
    for i in range(8):
        folder = image_folder / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i}.png")
    shutil.copytree(idx_folder, root / "copy")
    return {"IDX": idx_folder, "COPY": root / "copy", "IMAGES": image_folder}


DIGITS = {"data": {"source": "digits"}}
BASES: dict[str, dict[str, Any]] = {
    "digits": DIGITS,
    "idx": {"data": {"source": "folder", "path": "IDX", "label_column": 0}},
    "images": {"data": {"source": "folder", "path": "IMAGES"}},
    "sgd": {**DIGITS, "train": {"optimizer": "sgd"}},
    "processes": {**DIGITS, "runtime": {"task_runner": "processes"}},
    "dask": {**DIGITS, "runtime": {"task_runner": "dask"}},
}


def settings(
    folders: Mapping[str, Path], base: str = "digits", name: str = "", value: Any = None
) -> RunConfig:
    """Return the settings of a base, with the setting `name` set to a value."""
    values = copy.deepcopy(BASES[base])
    if name:
        section, _, field = name.partition(".")
        values.setdefault(section, {})[field] = value
    if "path" in values["data"]:
        values["data"]["path"] = str(folders[values["data"]["path"]])
    return config.validate(values)


def keys(values: RunConfig, changed: str = "") -> dict[str, Key]:
    """Return the key of every step for fixed inputs; the input `changed` has other content."""
    inputs = {kind: ("c" if kind == changed else "a") * 64 for kind in READERS}
    keys = {}
    for step in STEPS:
        resolved = step.resolve(step.slice(values), Path("/nowhere"))
        refs = [Ref(kind=kind, key="b" * 64, digest=inputs[kind]) for kind in step.reads]
        keys[step.name] = step.key(resolved, refs)
    return keys


def differing(old: Mapping[str, Key], new: Mapping[str, Key]) -> set[str]:
    return {str(name) for name in old if old[name].digest != new[name].digest}


def test_every_setting_has_a_row() -> None:
    """No new setting is included in keys, or left out of them, by accident."""
    known = {name for name, _ in validation.fields(RunConfig)}
    assert known == set(TABLE), (
        f"TABLE in {Path(__file__).name} needs one row for each setting: an old value, a new one "
        "and the steps whose own keys change. Declare a setting that was added later with "
        "Annotated[..., OmitFromKeyAt(value)]."
    )


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_changes_the_keys_of_its_steps_and_no_others(
    folders: dict[str, Path], name: str
) -> None:
    """Those of the steps that use it, as in the table."""
    row = TABLE[name]
    old, new = (settings(folders, row.base, name, value) for value in (row.old, row.new))
    assert old != new
    assert differing(keys(old), keys(new)) == set(row.steps)


def test_only_export_filters_has_no_settings() -> None:
    """Every other step is in the table."""
    named = {step for row in TABLE.values() for step in row.steps}
    assert {step.name for step in STEPS} - named == {"export_filters"}


@pytest.mark.parametrize("kind", READERS)
def test_a_changed_input_changes_the_keys_of_the_steps_that_read_it(
    folders: dict[str, Path], kind: Kind
) -> None:
    """Keys depend on the content of inputs, not on the settings that led to it."""
    values = settings(folders)
    assert differing(keys(values), keys(values, changed=kind)) == READERS[kind]


def test_a_key_holds_no_path_no_recipe_name_and_no_runtime_setting(
    folders: dict[str, Path],
) -> None:
    """Where and how a step computes is recorded elsewhere."""
    for base in ("digits", "idx", "images"):
        for key in keys(settings(folders, base)).values():
            text = repr(key.components)
            assert "runtime" not in text
            assert str(folders["IDX"].parent) not in text
            assert "recipe" not in repr(key.components["settings"])


def test_a_key_depends_on_the_content_of_a_data_folder_and_not_on_its_path(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Moved or compressed it is the same data set; with one pixel changed it is another."""
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


def test_only_the_values_of_a_recipe_count(folders: dict[str, Path]) -> None:
    """The recipe spec equals notebook with three settings changed."""
    changes = {"conv_bias": True, "logits_activation": "none", "log_split": "validation"}
    spec, notebook = (
        keys(config.validate({**DIGITS, "train": train}))
        for train in ({"recipe": "spec"}, {"recipe": "notebook", **changes})
    )
    assert differing(spec, notebook) == set()


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
def test_all_spellings_of_a_value_give_the_same_keys(
    section: str, name: str, values: tuple[Any, ...]
) -> None:
    """Values may come from the command line, a settings file or a form."""
    first, *others = (keys(settings({}, "digits", f"{section}.{name}", value)) for value in values)
    for other in others:
        assert differing(first, other) == set()


def evaluation_key(values: Settings) -> str:
    resolved = EVALUATE_MODEL.resolve(values, Path())
    return EVALUATE_MODEL.key(resolved, []).digest


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Later(EvaluateConfig):
    """The settings of a later version, which has added some."""

    whole: Annotated[Int, OmitFromKeyAt(0)] = Field(0, ge=0)
    number: Annotated[float, OmitFromKeyAt(0.5)] = 0.5
    flag: Annotated[bool, OmitFromKeyAt(False)] = False
    perhaps: Annotated[int | None, OmitFromKeyAt(None)] = None
    pair: Annotated[tuple[int, int], BeforeValidator(_pair), OmitFromKeyAt((28, 28))] = (28, 28)
    word: Annotated[str, OmitFromKeyAt("none")] = "none"


def test_a_new_setting_at_its_neutral_value_is_not_in_the_key() -> None:
    """Artifacts from before the setting existed are still found."""
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
    """It affects the result then; false-looking values count too."""
    values = Later.model_validate(change)
    (name,) = set(keyed(values)) - set(keyed(EvaluateConfig()))
    assert [name] == list(change)
    assert evaluation_key(values) != evaluation_key(EvaluateConfig())


class Changed(EvaluateConfig):
    """The settings of a version with a different default."""

    calibration_bins: Int = 10


class Moved(EvaluateConfig):
    """The settings of a version whose default is no longer the neutral value."""

    whole: Annotated[Int, OmitFromKeyAt(0)] = 3


def test_a_changed_default_changes_the_key() -> None:
    """An unset value has a new meaning then; the neutral value stays the same."""
    assert evaluation_key(Changed()) != evaluation_key(EvaluateConfig())
    assert evaluation_key(Changed(calibration_bins=15)) == evaluation_key(EvaluateConfig())
    assert evaluation_key(Moved()) != evaluation_key(EvaluateConfig())
    assert evaluation_key(Moved(whole=0)) == evaluation_key(EvaluateConfig())


def test_neutral_values_are_declared_at_the_field_itself() -> None:
    """Inside of `X | None` a neutral value would be ignored."""
    for name, field in (*validation.fields(RunConfig), *validation.fields(config.Training)):
        assert "OmitFromKeyAt(" not in repr(field.annotation), name


def comparison_key(**changes: Any) -> str:
    values = {"run": "one", "folder": Path("/one"), "digest": "a" * 64, "class_names": ("a", "b")}
    return COMPARE_MODELS.key(
        COMPARE_MODELS.resolve(Baseline(**{**values, **changes}), Path()), []
    ).digest


def test_a_comparison_depends_on_the_content_of_the_promoted_model() -> None:
    """It does not depend on the run that it was promoted from, or on its path."""
    assert comparison_key(run="two", folder=Path("/two")) == comparison_key()
    assert comparison_key(digest="b" * 64) != comparison_key()
    assert comparison_key(class_names=("b", "a")) != comparison_key()
