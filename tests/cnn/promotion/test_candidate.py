"""The gate's verdict on real models: planted ones, beside one that is promoted."""

import copy
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
    """A trained model, its data set on disk, and a store's root to promote in."""

    root: Path
    dataset: Dataset
    dataset_folder: Path
    model: Any

    def candidate(self, name: str, model: Any, dataset: Dataset | None = None) -> Candidate:
        """Save and evaluate a model as a run does, and return it as the gate is given it."""
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
        line = Promotion(run=run.name, model=candidate.model.digest, data=candidate.data)
        with registry.locked(self.root, TRACK):
            registry.promote(self.root, TRACK, run, candidate.folders["dataset"], line)


def _world(root: Path, config: DataConfig, **overrides: Any) -> World:
    from cnn.train import device, fit, recipes

    device.prepare(RuntimeConfig())
    downloads = root / "downloads"
    dataset = sources.load(sources.identify(config, downloads), config)
    training = recipes.resolve(TrainConfig(**overrides))
    return World(root, dataset, root / "data", fit.fit(dataset, training, 0).model)


@pytest.fixture(scope="module")
def trained_digits(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model of digits."""
    return _world(tmp_path_factory.mktemp("digits"), DataConfig(source="digits"), steps=150)


@pytest.fixture(scope="module")
def trained_mnist(tmp_path_factory: pytest.TempPathFactory, mnist_dir: Path) -> World:
    """A model of the real MNIST, of the recipe fast."""
    config = DataConfig(source="folder", path=mnist_dir)
    return _world(tmp_path_factory.mktemp("mnist"), config)


@pytest.fixture
def digits_world(trained_digits: World, tmp_path: Path) -> World:
    """A root of its own for each test."""
    return replace(trained_digits, root=tmp_path)


@pytest.fixture
def mnist_world(trained_mnist: World, tmp_path: Path) -> World:
    """A root of its own for each test."""
    return replace(trained_mnist, root=tmp_path)


def changed(model: Any, change: Callable[[list[np.ndarray]], None]) -> Any:
    """Return a copy of a model whose last kernel and bias were changed in place."""
    import keras

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    weights = [np.array(part) for part in clone.get_layer("logits").get_weights()]
    change(weights)
    clone.get_layer("logits").set_weights(weights)
    return clone


def worse_by(world: World, n: int) -> Any:
    """Return a model that is right on exactly n fewer validation images.

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
    """Return a model that says the same of every image, with other weights."""

    def scale(weights: list[np.ndarray]) -> None:
        weights[:] = [part * np.float32(1.001) for part in weights]

    return changed(model, scale)


def failing(verdict: GateDecision) -> set[str]:
    return {check.name for check in verdict.checks if not check.passed}


@pytest.mark.real_mnist
@pytest.mark.parametrize(
    ("n", "outcome", "why"),
    [
        (0, "promoted", set()),
        (3, "promoted", set()),
        (60, "rejected", {"McNemar test", "accuracy drop"}),
    ],
)
def test_a_model_that_loses_images_of_mnist(
    mnist_world: World, n: int, outcome: str, why: set[str]
) -> None:
    """Of 5,000 validation images: none and three pass, sixty do not."""
    mnist_world.promote(mnist_world.candidate("first", mnist_world.model))
    other = worse_by(mnist_world, n) if n else slightly_other(mnist_world.model)
    verdict = mnist_world.judge(mnist_world.candidate("second", other))
    assert (verdict.outcome, failing(verdict) >= why) == (outcome, True)
    figures = verdict.figures
    assert (figures["n_compared"], int(figures["n_lost"]) - int(figures["n_gained"])) == (5000, n)  # type: ignore[arg-type]
    assert all(name in verdict.because for name in why)


@pytest.mark.real_mnist
def test_a_better_model_of_mnist_takes_the_place(mnist_world: World) -> None:
    """Sixty images gained."""
    mnist_world.promote(mnist_world.candidate("first", worse_by(mnist_world, 60)))
    verdict = mnist_world.judge(mnist_world.candidate("second", mnist_world.model))
    assert (verdict.outcome, verdict.incumbent) == ("promoted", "first")
    assert verdict.because == "every check passed; in place of first"
    assert verdict.figures["difference"] == pytest.approx(60 / 5000)


@pytest.mark.real_mnist
def test_a_model_of_mnist_that_lost_a_class_is_rejected(mnist_world: World) -> None:
    """It never says 7."""

    def never_7(weights: list[np.ndarray]) -> None:
        weights[1][7] = -1000

    mnist_world.promote(mnist_world.candidate("first", mnist_world.model))
    lost = mnist_world.candidate("second", changed(mnist_world.model, never_7))
    verdict = mnist_world.judge(lost)
    assert verdict.outcome == "rejected"
    assert {"class recall", "class recall drop"} <= failing(verdict)
    assert "7: 0.00 %, the lowest" in verdict.because


def test_the_first_model_passes_the_floor_only(digits_world: World) -> None:
    """And answers in a fresh process as it was evaluated."""
    candidate = digits_world.candidate("first", digits_world.model)
    verdict = digits_world.judge(candidate)
    assert (verdict.outcome, verdict.model_in_force) == ("promoted", candidate.model.digest)
    names = [check.name for check in verdict.checks]
    assert names == ["accuracy", "class recall", "answers in a fresh process"]
    assert float(verdict.figures["milliseconds"]) > 0  # type: ignore[arg-type]
    assert float(verdict.figures["largest_difference"]) < candidates.TOLERANCE  # type: ignore[arg-type]
    assert verdict.figures["test_accuracy"] == candidate.headline["test_accuracy"]


def test_the_very_same_model_is_kept(digits_world: World) -> None:
    """Whatever the limits say by now."""
    candidate = digits_world.candidate("first", digits_world.model)
    digits_world.promote(candidate)
    verdict = digits_world.judge(candidate, GateConfig(min_accuracy=1.0))
    assert (verdict.outcome, verdict.incumbent, verdict.checks) == ("kept", "first", ())
    assert verdict.model_in_force == candidate.model.digest


def test_the_floor_rejects_the_first_model_too(digits_world: World) -> None:
    """It is not asked in a fresh process then: that takes seconds."""
    candidate = digits_world.candidate("first", worse_by(digits_world, 3))
    verdict = digits_world.judge(candidate, GateConfig(min_accuracy=1.0))
    assert (verdict.outcome, verdict.model_in_force) == ("rejected", "")
    assert verdict.because.startswith("accuracy: ")
    assert len(verdict.checks) == 2


def test_size_and_time_are_limits_where_they_are_set(digits_world: World) -> None:
    """Each is named."""
    candidate = digits_world.candidate("first", digits_world.model)
    verdict = digits_world.judge(candidate, GateConfig(max_megabytes=0.01))
    assert failing(verdict) == {"size of model.keras"}
    verdict = digits_world.judge(candidate, GateConfig(max_milliseconds=1e-6))
    assert failing(verdict) == {"time for one image"}


def test_a_model_with_nan_in_its_weights_is_rejected(digits_world: World) -> None:
    """Though its evaluation looks good: the file is what will be used."""
    good = digits_world.candidate("first", digits_world.model)

    def spoil(weights: list[np.ndarray]) -> None:
        weights[0][0, 0] = np.nan

    broken = changed(digits_world.model, spoil)
    exports.save_model(good.folders["model"], broken, digits_world.dataset)
    verdict = digits_world.judge(good)
    assert failing(verdict) == {"answers in a fresh process"}
    assert "weights of logits are not finite" in verdict.because


def test_a_model_that_answers_otherwise_than_it_was_evaluated_is_rejected(
    digits_world: World,
) -> None:
    """Its file is another model's."""
    good = digits_world.candidate("first", digits_world.model)

    def add(weights: list[np.ndarray]) -> None:
        weights[1][0] += 0.5

    exports.save_model(good.folders["model"], changed(digits_world.model, add), good.dataset)
    verdict = digits_world.judge(good)
    assert failing(verdict) == {"answers in a fresh process"}
    assert "from the evaluation at most" in verdict.because


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_a_file_that_does_not_open_is_rejected(digits_world: World, n_bytes: int) -> None:
    """Cut, as a full disk leaves it."""
    good = digits_world.candidate("first", digits_world.model)
    path = good.folders["model"] / "model.keras"
    path.write_bytes(path.read_bytes()[:n_bytes])
    verdict = digits_world.judge(good)
    assert failing(verdict) == {"answers in a fresh process"}
    assert "not a complete .keras archive" in verdict.because


def other_images(dataset: Dataset) -> Dataset:
    """Return a data set in which training and validation images changed places, but for 100."""
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    n = len(validation)
    first, rest = train.cut(n)
    kept, moved = validation.cut(100)
    parts = (np.concatenate([getattr(kept, name), getattr(first, name)]) for name in FIELDS)
    mixed = Split(*parts)
    parts = (np.concatenate([getattr(moved, name), getattr(rest, name)]) for name in FIELDS)
    return replace(dataset, splits={**dataset.splits, "train": Split(*parts), "validation": mixed})


FIELDS = ("images", "labels", "ids")


def test_where_the_images_changed_the_promoted_model_is_asked_anew(digits_world: World) -> None:
    """About those that it was not trained on, and no others."""
    digits_world.promote(digits_world.candidate("first", digits_world.model))
    changed_data = other_images(digits_world.dataset)
    other = slightly_other(digits_world.model)
    candidate = digits_world.candidate("second", other, changed_data)
    verdict = digits_world.judge(candidate)
    figures = verdict.figures
    assert (figures["n_compared"], figures["n_gained"], figures["n_lost"]) == (100, 0, 0)
    theirs = registry.current(digits_world.root, TRACK)
    assert theirs is not None
    split = digits_world.dataset.splits["validation"]
    table = parquet.read(theirs.tables / "predictions.parquet").to_pandas()
    hits = table[table["split"] == "validation"].eval("label == prediction").to_numpy()[:100]
    assert figures["incumbent_accuracy"] == pytest.approx(hits.mean())
    assert len(split) == 128
    assert verdict.outcome == "promoted"


def test_images_that_were_all_trained_on_compare_nothing(digits_world: World) -> None:
    """A person has to decide."""
    digits_world.promote(digits_world.candidate("first", digits_world.model))
    train = digits_world.dataset.splits["train"]
    splits = {**digits_world.dataset.splits, "validation": train.cut(200)[0]}
    data = replace(digits_world.dataset, splits=splits)
    verdict = digits_world.judge(digits_world.candidate("second", digits_world.model, data))
    # The very model is kept; one that differs is not compared.
    assert verdict.outcome == "kept"
    other = slightly_other(digits_world.model)
    verdict = digits_world.judge(digits_world.candidate("third", other, data))
    assert failing(verdict) == {"comparison"}
    assert "none of the 200 validation images is new" in verdict.because
    assert "filterscope promote decides by hand" in verdict.because


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "folder"}, "one for digits, this one for folder"),
        ({"class_names": tuple("abcdefghij")}, "has other classes"),
    ],
)
def test_another_task_never_competes(
    digits_world: World, changes: dict[str, Any], said: str
) -> None:
    """Neither other data nor other classes; the track has to be another one."""
    digits_world.promote(digits_world.candidate("first", digits_world.model))
    data = replace(digits_world.dataset, **changes)
    other = slightly_other(digits_world.model)
    verdict = digits_world.judge(digits_world.candidate("second", other, data))
    assert failing(verdict) == {"comparison"}
    assert said in verdict.because
    assert "gate.track" in verdict.because


@pytest.mark.parametrize(
    "name", ["tables/predictions.parquet", "arrays/validation-image-hashes.npy"]
)
def test_a_promoted_folder_that_was_damaged_promotes_nothing(
    digits_world: World, name: str
) -> None:
    """The file is named."""
    digits_world.promote(digits_world.candidate("first", digits_world.model))
    current = registry.current(digits_world.root, TRACK)
    assert current is not None
    (current.folder / name).write_bytes(b"")
    other = slightly_other(digits_world.model)
    verdict = digits_world.judge(digits_world.candidate("second", other))
    assert failing(verdict) == {"comparison"}
    assert name in verdict.because


def test_no_validation_images_promote_nothing(digits_world: World) -> None:
    """Whatever the test images say."""
    nothing = digits_world.dataset.splits["validation"].cut(0)[0]
    splits = {**digits_world.dataset.splits, "validation": nothing}
    data = replace(copy.copy(digits_world.dataset), splits=splits)
    verdict = digits_world.judge(digits_world.candidate("first", digits_world.model, data))
    assert failing(verdict) == {"validation images"}
