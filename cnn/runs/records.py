"""Run folders: what one run did and made, for people; and the index of all runs."""

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
    """One condition: whether it holds, what was found and what was wanted, in words."""

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    found: str
    wanted: str


class GateDecision(BaseModel):
    """What the gate decided on a run's model, why, and all figures.

    incumbent: the run whose model was promoted before, if any. model_in_force: digest of
    the model that is promoted afterwards, "" where none is.
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
    """What became of one step in a run."""

    model_config = ConfigDict(frozen=True)

    step: str
    state: Literal["ran", "cached", "failed"]
    why: str
    seconds: float
    ref: Ref | None = None


class ComparedWith(BaseModel):
    """With which promoted run's model a run's was compared, or why it could not be."""

    model_config = ConfigDict(frozen=True)

    run: str = ""
    problem: str = ""


class RunRecord(BaseModel):
    """Everything about one run; stands in its folder as run.json.

    `run` is the folder's name, whatever run.json says.
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
    """Return the name of a run's folder: its UTC time, then its name made safe for a path."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "run"
    return f"{created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{safe[:80]}"


def read_all(runs: Path) -> Iterator[RunRecord]:
    """Yield the records of all runs, oldest first; a damaged one is named in a warning."""
    found = []
    for path in sorted(runs.glob(f"[!.]*/{RECORD_NAME}")):
        try:
            found.append(read(path.parent))
        except ArtifactError as error:
            log.warning("%s; left out", error)
    yield from sorted(found, key=lambda record: record.created)


def read(folder: Path) -> RunRecord:
    """Return the record of a run's folder, named as the folder is; raises ArtifactError."""
    path = folder / RECORD_NAME
    if folder.is_symlink():
        raise ArtifactError(f"{path}: cannot be read (its folder is a link, which is not followed)")
    try:
        folder.name.encode()  # the index cannot hold a name that is no text
        return RunRecord.model_validate(strict_json.read(path) | {"run": folder.name})
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({_reason(error)})") from None


def _reason(error: OSError | ValueError) -> str:
    """Return in a line why a record cannot be read: of several wrong fields the first."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "it"
        return f"{name}: {first['msg']}"
    return str(error)


def find(runs: Path, name: str) -> tuple[RunRecord, Path]:
    """Return the run of that name, or the one whose name begins or ends so; "latest" works.

    Raises ConfigError where there is none or more than one.
    """
    known = list(read_all(runs))
    matching = known[-1:] if name == "latest" else [item for item in known if item.run == name]
    matching = matching or [
        item for item in known if item.run.startswith(name) or item.run.endswith(name)
    ]
    if len(matching) == 1:
        return matching[0], runs / matching[0].run
    shown = ", ".join(item.run for item in (matching or known)[-5:]) or "none"
    found = "several runs" if matching else "no run"
    raise ConfigError(f"run {name!r}: {found} of that name in {runs}; there are {shown}")


def latest_of(runs: Path, refs: Collection[Ref]) -> tuple[RunRecord, Path] | None:
    """Return the newest completed run that is made of exactly these artifacts, with its folder.

    A comparison beside them does not count: it depends on what was promoted at the time.
    """
    for path in sorted(runs.glob(f"[!.]*/{RECORD_NAME}"), reverse=True):
        try:
            record = read(path.parent)
        except ArtifactError:
            continue
        found = (step.ref for step in record.steps)
        made_of = {ref for ref in found if ref and ref.kind != "comparison"}
        whole = record.status == "completed" and (path.parent / REPORT_NAME).exists()
        if whole and made_of == set(refs):
            return record, path.parent
    return None


def number(headline: Headline, name: str) -> float | None:
    """Return a figure of a headline, or None where it has none of that name."""
    value = headline.get(name)
    return None if value is None or isinstance(value, str) else float(value)
