"""Run records: what one run did, which artifacts it made, and how runs are found by name."""

import logging
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cnn.errors import ArtifactError, ConfigError
from cnn.io import strict_json
from cnn.store.manifests import Headline, Int64, UtcTime
from cnn.store.refs import Ref

log = logging.getLogger(__name__)

RECORD_NAME, REPORT_NAME = "run.json", "report.html"
Figures = dict[str, float | int | str | None]


class Check(BaseModel):
    """One condition of the gate: whether it holds, the value found and the value required."""

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    found: str
    wanted: str


class GateDecision(BaseModel):
    """The gate's decision on a run's model, the reason, the checks and the figures.

    incumbent: the run whose model was promoted before, "" if none. model_in_force: digest of
    the model that is promoted after the decision, "" if none.
    """

    model_config = ConfigDict(frozen=True)

    outcome: Literal["kept", "promoted", "rejected"]
    track: str
    because: str
    checks: tuple[Check, ...] = ()
    figures: Figures = {}
    incumbent: str = ""
    model_in_force: str = ""


class StepOutcome(BaseModel):
    """The outcome of one step of a run."""

    model_config = ConfigDict(frozen=True)

    step: str
    state: Literal["ran", "cached", "failed"]
    why: str
    seconds: float
    ref: Ref | None = None


class ComparedWith(BaseModel):
    """The promoted run that a run's model was compared with, or why it could not be compared."""

    model_config = ConfigDict(frozen=True)

    run: str = ""
    problem: str = ""


class RunRecord(BaseModel):
    """Everything about one run, as stored in its folder's run.json.

    `run` is the name of the folder, even if run.json has another.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    run: str
    created: UtcTime
    status: Literal["completed", "failed"]
    data: str
    note: str = ""
    recipe: str
    seed: Int64
    config: dict[str, Any]
    training: dict[str, Any]
    steps: tuple[StepOutcome, ...]
    headline: Headline = {}
    seconds: float
    environment: dict[str, Any] = {}
    flow_run_id: str | None = None
    deployment: str = ""
    gate: GateDecision | None = None
    compared: ComparedWith | None = None
    error: str = ""


def folder_name(created: datetime, name: str) -> str:
    """Return the name of a run's folder: UTC time, then the run's name made safe for a path."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "run"
    return f"{created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{safe[:80]}"


def read_all(runs: Path) -> Iterator[RunRecord]:
    """Yield the records of all runs, oldest first; skip a damaged one with a warning."""
    readable = []
    for path in sorted(runs.glob(f"[!.]*/{RECORD_NAME}")):
        try:
            readable.append(read(path.parent))
        except ArtifactError as error:
            log.warning("%s; this run is skipped", error)
    yield from sorted(readable, key=lambda record: record.created)


def read(folder: Path) -> RunRecord:
    """Return the record in a run's folder, with the folder's name; raises ArtifactError."""
    path = folder / RECORD_NAME
    if folder.is_symlink():
        raise ArtifactError(f"{path}: cannot be read (its folder is a link, which is not followed)")
    try:
        folder.name.encode()  # the index cannot hold a name that is not UTF-8
        return RunRecord.model_validate(strict_json.read(path) | {"run": folder.name})
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({_reason(error)})") from None


def _reason(error: OSError | ValueError) -> str:
    """Return one line that says why a record cannot be read; it names the first wrong field."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "it"
        return f"{name}: {first['msg']}"
    return str(error)


def find(runs: Path, name: str) -> tuple[RunRecord, Path]:
    """Return the record and folder of the run with this name, or with this beginning or end.

    "latest" is the newest run. Raises ConfigError if no run or more than one run matches.
    """
    known = list(read_all(runs))
    matching = known[-1:] if name == "latest" else [item for item in known if item.run == name]
    matching = matching or [
        item for item in known if item.run.startswith(name) or item.run.endswith(name)
    ]
    if len(matching) == 1:
        return matching[0], runs / matching[0].run
    shown = ", ".join(item.run for item in (matching or known)[-5:]) or "none"
    problem = "several runs match" if matching else "no run of that name"
    raise ConfigError(f"run {name!r}: {problem} in {runs}; there are {shown}")


def latest_of(runs: Path, refs: Collection[Ref]) -> tuple[RunRecord, Path] | None:
    """Return record and folder of the newest completed run with exactly these artifacts, or None.

    A comparison is ignored: it depends on which model was promoted at the time.
    """
    for path in sorted(runs.glob(f"[!.]*/{RECORD_NAME}"), reverse=True):
        try:
            record = read(path.parent)
        except ArtifactError:
            continue
        made = (step.ref for step in record.steps)
        artifacts = {ref for ref in made if ref and ref.kind != "comparison"}
        complete = record.status == "completed" and (path.parent / REPORT_NAME).exists()
        if complete and artifacts == set(refs):
            return record, path.parent
    return None


def number(headline: Headline, name: str) -> float | None:
    """Return a number of the headline, or None if it is missing or not a number."""
    value = headline.get(name)
    return None if value is None or isinstance(value, str) else float(value)
