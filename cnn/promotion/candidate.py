"""The gate's decision on a run's model, from its predictions and those of the promoted model.

Both models are compared on the same validation images. If the images have changed since the
promotion, the promoted model predicts those that it was not trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn.config.run import GateConfig
from cnn.data import dataset as datasets
from cnn.data import image_hashes
from cnn.data.dataset import Split
from cnn.errors import ArtifactError
from cnn.evaluate.paired import Hits
from cnn.model_io import exports
from cnn.promotion import gate, isolated
from cnn.promotion.registry import Incumbent
from cnn.runs.records import Check, Figures, GateDecision
from cnn.store.refs import Kind, Ref
from cnn.tables import parquet

TOLERANCE = 1e-3  # by which probabilities computed in another process may differ
_TEST_FIGURES = ("test_accuracy", "test_accuracy_ci_low", "test_accuracy_ci_high")


@dataclass(frozen=True)
class Candidate:
    """A run's model: artifact folders by kind, its ref, and the headline of the evaluation."""

    folders: Mapping[Kind, Path]
    model: Ref
    data: str
    headline: Mapping[str, Any]

    @cached_property
    def dataset(self) -> datasets.Dataset:
        """The data set that the model was trained and evaluated on."""
        return datasets.read(self.folders["dataset"])

    @property
    def validation(self) -> Split:
        """The validation images: they alone decide."""
        return self.dataset.splits["validation"]

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Probabilities of the validation images from the evaluation, (n, classes)."""
        return _probabilities(self.folders["evaluation"], len(self.dataset.class_names))


def judge(
    candidate: Candidate, incumbent: Incumbent | None, track: str, limits: GateConfig
) -> GateDecision:
    """Return the gate's decision on a model, compared with the promoted one on its track, if any.

    All checks run even if one fails, except the last: predicting in a fresh process takes
    seconds, so it runs only if all others passed.
    """
    in_force = incumbent.model if incumbent else ""
    promoted_run = incumbent.run if incumbent else ""
    tested: Figures = {name: candidate.headline.get(name) for name in _TEST_FIGURES}
    if in_force == candidate.model.digest:
        because = f"the same model is already promoted, from {promoted_run}"
        return GateDecision(
            outcome="kept",
            track=track,
            because=because,
            figures=tested,
            incumbent=promoted_run,
            model_in_force=in_force,
        )
    checks, figures = _own(candidate, limits)
    if incumbent:
        checks, figures = _add((checks, figures), _against(candidate, incumbent, limits))
    if not gate.failed(checks):
        checks, figures = _add((checks, figures), _in_isolation(candidate, limits))
    failed = gate.failed(checks)
    place = f"replaces {promoted_run}" if promoted_run else "the first on its track"
    return GateDecision(
        outcome="rejected" if failed else "promoted",
        track=track,
        because=failed or f"every check passed; {place}",
        checks=tuple(checks),
        figures={**tested, **figures},
        incumbent=promoted_run,
        model_in_force=in_force if failed else candidate.model.digest,
    )


def isolation_checks(candidate: Candidate, limits: GateConfig) -> list[Check]:
    """Return the checks that the saved model, in a fresh process, repeats its evaluation."""
    return _in_isolation(candidate, limits)[0]


def refuse_other_task(candidate: Candidate, incumbent: Incumbent) -> None:
    """Raise ArtifactError if the promoted model is for other data or other classes."""
    if incumbent.data != candidate.data:
        raise ArtifactError(
            f"the promoted model is for {incumbent.data}, this one for {candidate.data}; "
            "give each its own gate.track"
        )
    if incumbent.class_names != candidate.dataset.class_names:
        raise ArtifactError(
            f"the promoted model has other classes ({', '.join(incumbent.class_names)}) than "
            f"this one ({', '.join(candidate.dataset.class_names)}); give each its own gate.track"
        )


_Checked = tuple[list[Check], Figures]


def _add(first: _Checked, second: _Checked) -> _Checked:
    return [*first[0], *second[0]], {**first[1], **second[1]}


def _own(candidate: Candidate, limits: GateConfig) -> _Checked:
    """Return the checks of accuracy, recall and size, which need no other model or process."""
    split = candidate.validation
    hits = _hits(candidate.probabilities, split)
    checks = gate.floor(split.labels, hits, candidate.dataset.class_names, limits)
    n_bytes = (candidate.folders["model"] / exports.MODEL_NAME).stat().st_size
    megabytes = n_bytes / 1e6
    checks += gate.at_most("size of model.keras", megabytes, limits.max_megabytes, "MB")
    accuracy = float(hits.sum() / len(hits)) if len(hits) else None
    return checks, {"validation_accuracy": accuracy, "megabytes": megabytes}


def _against(candidate: Candidate, incumbent: Incumbent, limits: GateConfig) -> _Checked:
    """Return the checks against the promoted model; they fail if it cannot be compared."""
    names = candidate.dataset.class_names
    try:
        refuse_other_task(candidate, incumbent)
        compared, theirs = _compared(candidate, incumbent)
    except ArtifactError as error:
        required = "the promoted model's predictions of the same images"
        problem = f"{error}; or decide by hand with filterscope promote"
        return [Check(name="comparison", passed=False, found=problem, wanted=required)], {}
    split = candidate.validation.take(compared)
    ours = candidate.probabilities[compared]
    return gate.comparison(split.labels, _hits(ours, split), _hits(theirs, split), names, limits)


def _compared(
    candidate: Candidate, incumbent: Incumbent
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    """Return the positions of the validation images to compare on, and the incumbent's output."""
    images = candidate.validation.images
    here = image_hashes.of(images)
    if np.array_equal(here, incumbent.image_hashes("validation")):
        return np.arange(len(here)), _probabilities(
            incumbent.tables, len(candidate.dataset.class_names)
        )
    new = np.flatnonzero(~np.isin(here, incumbent.image_hashes("train")))
    if not len(new):
        raise ArtifactError(
            f"the promoted model was trained on all {len(here):,} validation images, so it cannot "
            "be compared on them"
        )
    return new, isolated.predict(incumbent.model_folder, images[new]).probabilities


def _in_isolation(candidate: Candidate, limits: GateConfig) -> _Checked:
    """Return the checks that open the saved model in a fresh process."""
    name, required = "answers in a fresh process", f"at most {TOLERANCE}"
    images = candidate.validation.images
    try:
        predicted = isolated.predict(candidate.folders["model"], images)
    except ArtifactError as error:
        return [Check(name=name, passed=False, found=str(error), wanted=required)], {}
    difference = np.abs(predicted.probabilities - candidate.probabilities).max()
    agrees = bool(difference <= TOLERANCE)  # False if it is NaN
    found = f"largest difference from the evaluation {difference:.2g}, {len(images):,} images"
    checks = [Check(name=name, passed=agrees, found=found, wanted=required)]
    limit = limits.max_milliseconds
    checks += gate.at_most("time for one image", predicted.milliseconds, limit, "ms")
    return checks, {
        "milliseconds": predicted.milliseconds,
        "largest_difference": float(difference),
    }


def _hits(probabilities: NDArray[np.floating[Any]], split: Split) -> Hits:
    """Return which images are predicted correctly, (n,); one with a NaN probability is not."""
    finite = np.isfinite(probabilities).all(axis=1)
    hits: Hits = (probabilities.argmax(axis=1) == split.labels) & finite
    return hits


def _probabilities(folder: Path, n_classes: int) -> NDArray[np.float32]:
    """Return the validation probabilities in a folder's predictions.parquet, in its order."""
    table = parquet.read(folder / "predictions.parquet")
    validation = table.filter(table["split"].to_numpy() == "validation")["probabilities"]
    values = pc.list_flatten(validation).to_numpy()
    probabilities: NDArray[np.float32] = values.astype(np.float32).reshape(-1, n_classes)
    return probabilities
