"""The gate's decision on real models with known faults, compared with a promoted model."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.config.run import DataConfig, EvaluateConfig, GateConfig, RuntimeConfig, TrainConfig
from cnn.data import dataset as datasets
from cnn.data import sources
from cnn.data.dataset import Dataset, Split
from cnn.evaluate import evaluation
from cnn.model_io import exports
from cnn.promotion import candidate as candidates
from cnn.promotion import registry
from cnn.promotion.candidate import Candidate
from cnn.promotion.registry import Promotion
from cnn.runs.records import GateDecision
from cnn.store import manifests
from cnn.store.refs import Ref
from cnn.tables import parquet

pytestmark = pytest.mark.slow

TRACK = "main"
LIMITS = GateConfig()


@dataclass(frozen=True)
class World:
    """A trained model, its data set, and the root of a store."""

    root: Path
    dataset: Dataset
    model: Any

    def candidate(self, name: str, model: Any, dataset: Dataset | None = None) -> Candidate:
        """Save and evaluate a model as a run does."""
        folder = self.root / name
        data = dataset or self.dataset
        parts = {kind: folder / kind for kind in ("dataset", "model", "evaluation")}
        for part in parts.values():
            part.mkdir(parents=True)
        datasets.write(parts["dataset"], data)
        exports.save_model(parts["model"], model, data)
        measured = evaluation.evaluate(model, data, EvaluateConfig().calibration_bins)
        for table, rows in measured.tables.items():
            parquet.write_rows(parts["evaluation"] / f"{table}.parquet", table, rows)
        digest = manifests.digest(manifests.describe(parts["model"]))
        ref = Ref(kind="model", key="a" * 64, digest=digest)
        return Candidate(parts, ref, data.name, measured.headline)  # type: ignore[arg-type]

    def judge(self, candidate: Candidate, limits: GateConfig = LIMITS) -> GateDecision:
        return candidates.judge(candidate, registry.current(self.root, TRACK), TRACK, limits)

    def promote(self, candidate: Candidate) -> None:
        run = self.root / "runs" / candidate.folders["model"].parent.name
        shutil.copytree(candidate.folders["model"], run / "model")
        shutil.copytree(candidate.folders["evaluation"], run / "tables")
        entry = Promotion(run=run.name, model=candidate.model.digest, data=candidate.data)
        with registry.locked(self.root, TRACK):
            registry.promote(self.root, TRACK, run, candidate.folders["dataset"], entry)


def _world(root: Path, config: DataConfig, **overrides: Any) -> World:
    from cnn.train import device, fit, recipes

    device.prepare(RuntimeConfig())
    dataset = sources.load(sources.identify(config, root / "downloads"), config)
    training = recipes.resolve(TrainConfig(**overrides))
    return World(root, dataset, fit.fit(dataset, training, 0).model)


@pytest.fixture(scope="module")
def trained_digits(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model trained on digits."""
    return _world(tmp_path_factory.mktemp("digits"), DataConfig(source="digits"), steps=150)


@pytest.fixture(scope="module")
def trained_mnist(tmp_path_factory: pytest.TempPathFactory, mnist_dir: Path) -> World:
    """A model trained on the real MNIST with the recipe fast."""
    config = DataConfig(source="folder", path=mnist_dir)
    return _world(tmp_path_factory.mktemp("mnist"), config)


@pytest.fixture
def digits_world(trained_digits: World, tmp_path: Path) -> World:
    """The model trained on digits, with a new store."""
    return replace(trained_digits, root=tmp_path)


@pytest.fixture
def mnist_world(trained_mnist: World, tmp_path: Path) -> World:
    """The model trained on MNIST, with a new store."""
    return replace(trained_mnist, root=tmp_path)


def changed(model: Any, change: Callable[[list[np.ndarray]], None]) -> Any:
    """Return a copy of a model with the kernel and bias of its last layer changed."""
    import keras

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    weights = [np.array(part) for part in clone.get_layer("logits").get_weights()]
    change(weights)
    clone.get_layer("logits").set_weights(weights)
    return clone


def worse_by(world: World, n: int) -> Any:
    """Return a model that predicts exactly n fewer validation images correctly.

    Its logits are shifted along a random direction until so many are lost.
    """
    from cnn.evaluate import predictions

    split = world.dataset.splits["validation"]
    logits = predictions.logits_of(world.model)(split.images)
    right = int((logits.argmax(axis=1) == split.labels).sum())
    rng = np.random.default_rng(0)
    for direction in rng.normal(size=(20, logits.shape[1])).astype(np.float32):
        for size in np.linspace(0.1, 12, 400, dtype=np.float32):
            shift = size * direction
            now = int(((logits + shift).argmax(axis=1) == split.labels).sum())
            if right - now == n:

                def add(weights: list[np.ndarray], shift: np.ndarray = shift) -> None:
                    weights[1] += shift

                return changed(world.model, add)
    raise AssertionError(f"no direction loses exactly {n} images")


def slightly_other(model: Any) -> Any:
    """Return a model with other weights that predicts the same for every image."""

    def scale(weights: list[np.ndarray]) -> None:
        weights[:] = [part * np.float32(1.001) for part in weights]

    return changed(model, scale)


def failing(decision: GateDecision) -> set[str]:
    return {check.name for check in decision.checks if not check.passed}


@pytest.mark.real_mnist
@pytest.mark.parametrize(
    ("n_lost", "outcome", "reasons"),
    [
        (-60, "promoted", set()),
        (0, "promoted", set()),
        (3, "promoted", set()),
        (60, "rejected", {"McNemar test", "accuracy drop"}),
    ],
)
def test_losing_60_of_5000_mnist_images_is_too_many(
    mnist_world: World, n_lost: int, outcome: str, reasons: set[str]
) -> None:
    """A model that loses 3 may be as good by chance, one that gains 60 is better."""
    first = worse_by(mnist_world, -n_lost) if n_lost < 0 else mnist_world.model
    second = worse_by(mnist_world, n_lost) if n_lost > 0 else slightly_other(mnist_world.model)
    mnist_world.promote(mnist_world.candidate("first", first))
    decision = mnist_world.judge(mnist_world.candidate("second", second))
    assert (decision.outcome, decision.incumbent) == (outcome, "first")
    assert failing(decision) >= reasons
    figures: dict[str, Any] = decision.figures
    assert (figures["n_compared"], figures["n_lost"] - figures["n_gained"]) == (5000, n_lost)
    assert figures["difference"] == pytest.approx(-n_lost / 5000)
    if reasons:
        assert all(name in decision.because for name in reasons)
    else:
        assert decision.because == "every check passed; replaces first"


@pytest.mark.real_mnist
def test_a_model_that_never_predicts_7_is_rejected(mnist_world: World) -> None:
    """The recall of that class is 0."""

    def never_7(weights: list[np.ndarray]) -> None:
        weights[1][7] = -1000

    mnist_world.promote(mnist_world.candidate("first", mnist_world.model))
    lost = mnist_world.candidate("second", changed(mnist_world.model, never_7))
    decision = mnist_world.judge(lost)
    assert decision.outcome == "rejected"
    assert {"class recall", "class recall drop"} <= failing(decision)
    assert "7: 0.00 %, the lowest" in decision.because


def test_the_first_model_needs_only_the_minimum_and_is_then_kept(digits_world: World) -> None:
    """It also predicts in a fresh process; once promoted, it is kept whatever the limits are."""
    candidate = digits_world.candidate("first", digits_world.model)
    decision = digits_world.judge(candidate)
    assert (decision.outcome, decision.model_in_force) == ("promoted", candidate.model.digest)
    names = [check.name for check in decision.checks]
    assert names == ["accuracy", "class recall", "answers in a fresh process"]
    figures: dict[str, Any] = decision.figures
    assert figures["milliseconds"] > 0
    assert figures["largest_difference"] < candidates.TOLERANCE
    assert figures["test_accuracy"] == candidate.headline["test_accuracy"]
    digits_world.promote(candidate)
    decision = digits_world.judge(candidate, GateConfig(min_accuracy=1.0))
    assert (decision.outcome, decision.incumbent, decision.checks) == ("kept", "first", ())
    assert decision.model_in_force == candidate.model.digest


@pytest.mark.parametrize(
    ("limits", "name", "n_checks"),
    [
        ({"min_accuracy": 1.0}, "accuracy", 2),  # the slow check in a fresh process is skipped
        ({"max_megabytes": 0.01}, "size of model.keras", 3),
        ({"max_milliseconds": 1e-6}, "time for one image", 4),
    ],
)
def test_a_first_model_beyond_a_limit_is_rejected(
    digits_world: World, limits: dict[str, float], name: str, n_checks: int
) -> None:
    """The reason names the check."""
    candidate = digits_world.candidate("first", worse_by(digits_world, 3))
    decision = digits_world.judge(candidate, GateConfig(**limits))
    assert (decision.outcome, decision.model_in_force) == ("rejected", "")
    assert failing(decision) == {name}
    assert decision.because.startswith(f"{name}: ")
    assert len(decision.checks) == n_checks


def nan_weight(weights: list[np.ndarray]) -> None:
    weights[0][0, 0] = np.nan


def other_bias(weights: list[np.ndarray]) -> None:
    weights[1][0] += 0.5


@pytest.mark.parametrize(
    ("damage", "because"),
    [
        (nan_weight, "weights of logits are not finite"),
        (other_bias, "largest difference from the evaluation "),
        (0, "not a complete .keras archive"),
        (1000, "not a complete .keras archive"),
    ],
)
def test_a_saved_model_that_does_not_reproduce_its_evaluation_is_rejected(
    digits_world: World, damage: Any, because: str
) -> None:
    """A user opens the file, whatever the evaluation says: weights changed, or file cut off."""
    good = digits_world.candidate("first", digits_world.model)
    if callable(damage):
        other = changed(digits_world.model, damage)
        exports.save_model(good.folders["model"], other, digits_world.dataset)
    else:
        os.truncate(good.folders["model"] / "model.keras", damage)
    decision = digits_world.judge(good)
    assert failing(decision) == {"answers in a fresh process"}
    assert because in decision.because


def swapped(dataset: Dataset) -> Dataset:
    """Return a data set in which training and validation images are swapped, except for 100."""

    def joined(first: Split, second: Split) -> Split:
        fields = ("images", "labels", "ids")
        return Split(
            *(np.concatenate([getattr(part, f) for part in (first, second)]) for f in fields)
        )

    first, rest = dataset.splits["train"].cut(len(dataset.splits["validation"]))
    kept, moved = dataset.splits["validation"].cut(100)
    splits = {"train": joined(moved, rest), "validation": joined(kept, first)}
    return replace(dataset, splits={**dataset.splits, **splits})


def test_the_promoted_model_predicts_new_validation_images_it_was_not_trained_on(
    digits_world: World,
) -> None:
    """And both models are compared on those alone."""
    digits_world.promote(digits_world.candidate("first", digits_world.model))
    other = slightly_other(digits_world.model)
    decision = digits_world.judge(
        digits_world.candidate("second", other, swapped(digits_world.dataset))
    )
    figures = decision.figures
    assert (figures["n_compared"], figures["n_gained"], figures["n_lost"]) == (100, 0, 0)
    incumbent = registry.current(digits_world.root, TRACK)
    assert incumbent is not None
    table = parquet.read(incumbent.tables / "predictions.parquet").to_pandas()
    hits = table[table["split"] == "validation"].eval("label == prediction").to_numpy()
    assert figures["incumbent_accuracy"] == pytest.approx(hits[:100].mean())
    assert len(hits) == 128
    assert decision.outcome == "promoted"


def trained_on(dataset: Dataset) -> dict[str, Any]:
    """Return splits in which the validation images are training images."""
    first, _ = dataset.splits["train"].cut(200)
    return {"splits": {**dataset.splits, "validation": first}}


@pytest.mark.parametrize(
    ("change", "damaged", "because"),
    [
        (lambda _: {"name": "folder"}, "", ("is for digits, this one for folder", "gate.track")),
        (lambda _: {"class_names": tuple("abcdefghij")}, "", ("has other classes", "gate.track")),
        (trained_on, "", ("was trained on all 200 validation images",)),
        (lambda _: {}, "tables/predictions.parquet", ("predictions.parquet",)),
        (lambda _: {}, "arrays/validation-image-hashes.npy", ("validation-image-hashes.npy",)),
    ],
)
def test_a_model_that_cannot_be_compared_is_rejected(
    digits_world: World, change: Any, damaged: str, because: tuple[str, ...]
) -> None:
    """Other data or classes, no new images, damaged files: the user decides by hand."""
    digits_world.promote(digits_world.candidate("first", digits_world.model))
    incumbent = registry.current(digits_world.root, TRACK)
    assert incumbent is not None
    if damaged:
        (incumbent.folder / damaged).write_bytes(b"")
    data = replace(digits_world.dataset, **change(digits_world.dataset))
    other = slightly_other(digits_world.model)
    decision = digits_world.judge(digits_world.candidate("second", other, data))
    assert failing(decision) == {"comparison"}
    for words in (*because, "decide by hand with filterscope promote"):
        assert words in decision.because


def test_a_model_without_validation_images_is_rejected(digits_world: World) -> None:
    """Test images never decide."""
    splits = digits_world.dataset.splits
    empty = {**splits, "validation": splits["validation"].cut(0)[0]}
    data = replace(digits_world.dataset, splits=empty)
    decision = digits_world.judge(digits_world.candidate("first", digits_world.model, data))
    assert failing(decision) == {"validation images"}
