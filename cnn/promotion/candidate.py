"""Judges a run's model before it is promoted: gathers what the gate's checks need.

The promoted model is compared on the same validation images. Where the images changed
since, it is asked anew about those that it was not trained on.
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

TOLERANCE = 1e-3  # by which probabilities may differ that another process computes
_TEST_FIGURES = ("test_accuracy", "test_accuracy_ci_low", "test_accuracy_ci_high")


@dataclass(frozen=True)
class Candidate:
    """A run's model: its artifacts' folders by kind, its ref, the evaluation's headline."""

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
        """The images that decide."""
        return self.dataset.splits["validation"]

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """What the evaluation found for the validation images, (n, classes)."""
        return _probabilities(self.folders["evaluation"], len(self.dataset.class_names))


def judge(
    candidate: Candidate, incumbent: Incumbent | None, track: str, limits: GateConfig
) -> GateDecision:
    """Return the verdict on a model beside the one that is promoted on its track, if any.

    Every check is made although one failed, but for the last, the model's answers in a fresh
    process, which takes seconds.
    """
    in_force = incumbent.model if incumbent else ""
    earlier = incumbent.run if incumbent else ""
    tested: Figures = {name: candidate.headline.get(name) for name in _TEST_FIGURES}
    if in_force == candidate.model.digest:
        because = f"this very model is promoted already, by {earlier}"
        return GateDecision(
            outcome="kept",
            track=track,
            because=because,
            figures=tested,
            incumbent=earlier,
            model_in_force=in_force,
        )
    checks, figures = _own(candidate, limits)
    if incumbent:
        checks, figures = _add((checks, figures), _against(candidate, incumbent, limits))
    if not gate.failed(checks):
        checks, figures = _add((checks, figures), _in_isolation(candidate, limits))
    failed = gate.failed(checks)
    place = f"in place of {earlier}" if earlier else "the first on its track"
    return GateDecision(
        outcome="rejected" if failed else "promoted",
        track=track,
        because=failed or f"every check passed; {place}",
        checks=tuple(checks),
        figures={**tested, **figures},
        incumbent=earlier,
        model_in_force=in_force if failed else candidate.model.digest,
    )


def isolation_checks(candidate: Candidate, limits: GateConfig) -> list[Check]:
    """Return whether the saved model answers in a fresh process as it was evaluated."""
    return _in_isolation(candidate, limits)[0]


def refuse_other_task(candidate: Candidate, incumbent: Incumbent) -> None:
    """Raise ArtifactError where the promoted model knows other data or other classes."""
    if incumbent.data != candidate.data:
        raise ArtifactError(
            f"the promoted model is one for {incumbent.data}, this one for {candidate.data}: "
            "give each a gate.track of its own"
        )
    if incumbent.class_names != candidate.dataset.class_names:
        raise ArtifactError(
            "the promoted model has other classes "
            f"({', '.join(incumbent.class_names)}), this one "
            f"({', '.join(candidate.dataset.class_names)}): give each a gate.track of its own"
        )


_Found = tuple[list[Check], Figures]


def _add(found: _Found, more: _Found) -> _Found:
    return [*found[0], *more[0]], {**found[1], **more[1]}


def _own(candidate: Candidate, limits: GateConfig) -> _Found:
    """Return the checks that need neither another model nor another process."""
    split = candidate.validation
    hits = _hits(candidate.probabilities, split)
    checks = gate.floor(split.labels, hits, candidate.dataset.class_names, limits)
    n_bytes = (candidate.folders["model"] / exports.MODEL_NAME).stat().st_size
    megabytes = n_bytes / 1e6
    checks += gate.at_most("size of model.keras", megabytes, limits.max_megabytes, "MB")
    accuracy = float(hits.sum() / len(hits)) if len(hits) else None
    return checks, {"validation_accuracy": accuracy, "megabytes": megabytes}


def _against(candidate: Candidate, incumbent: Incumbent, limits: GateConfig) -> _Found:
    """Return the checks against the promoted model; one that cannot be compared with wins."""
    names = candidate.dataset.class_names
    try:
        refuse_other_task(candidate, incumbent)
        compared, theirs = _compared(candidate, incumbent)
    except ArtifactError as error:
        wanted = "the promoted model, on the same images"
        found = f"{error}; filterscope promote decides by hand"
        return [Check(name="comparison", passed=False, found=found, wanted=wanted)], {}
    split = candidate.validation.take(compared)
    ours = candidate.probabilities[compared]
    return gate.comparison(split.labels, _hits(ours, split), _hits(theirs, split), names, limits)


def _compared(
    candidate: Candidate, incumbent: Incumbent
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    """Return which validation images both models can be compared on, and what theirs says."""
    images = candidate.validation.images
    here = image_hashes.of(images)
    if np.array_equal(here, incumbent.image_hashes("validation")):
        return np.arange(len(here)), _probabilities(
            incumbent.tables, len(candidate.dataset.class_names)
        )
    new = np.flatnonzero(~np.isin(here, incumbent.image_hashes("train")))
    if not len(new):
        raise ArtifactError(
            f"none of the {len(here):,} validation images is new to the promoted model, which was "
            "trained on other images"
        )
    return new, isolated.predict(incumbent.model_folder, images[new]).probabilities


def _in_isolation(candidate: Candidate, limits: GateConfig) -> _Found:
    """Return the checks that open the saved model in a fresh process."""
    name, wanted = "answers in a fresh process", f"within {TOLERANCE}"
    images = candidate.validation.images
    try:
        said = isolated.predict(candidate.folders["model"], images)
    except ArtifactError as error:
        return [Check(name=name, passed=False, found=str(error), wanted=wanted)], {}
    apart = np.abs(said.probabilities - candidate.probabilities).max()
    agrees = bool(apart <= TOLERANCE)  # not where it is NaN
    found = f"{apart:.2g} from the evaluation at most, {len(images):,} images"
    checks = [Check(name=name, passed=agrees, found=found, wanted=wanted)]
    limit = limits.max_milliseconds
    checks += gate.at_most("time for one image", said.milliseconds, limit, "ms")
    return checks, {"milliseconds": said.milliseconds, "largest_difference": float(apart)}


def _hits(probabilities: NDArray[np.floating[Any]], split: Split) -> Hits:
    """Return which images are right, (n,); a NaN among an image's probabilities is wrong."""
    sound = np.isfinite(probabilities).all(axis=1)
    hits: Hits = (probabilities.argmax(axis=1) == split.labels) & sound
    return hits


def _probabilities(folder: Path, n_classes: int) -> NDArray[np.float32]:
    """Return the probabilities in a table of predictions for validation, in its order."""
    table = parquet.read(folder / "predictions.parquet")
    mine = table.filter(table["split"].to_numpy() == "validation")["probabilities"]
    values = pc.list_flatten(mine).to_numpy()
    probabilities: NDArray[np.float32] = values.astype(np.float32).reshape(-1, n_classes)
    return probabilities
