"""Run folders: what one run did and made, for people; and the index of all runs."""

import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cnn import documents, files
from cnn.errors import ArtifactError, ConfigError, FilterscopeError
from cnn.evaluate.gate import Verdict
from cnn.store import inuse, tables
from cnn.store.manifests import Headline, Moment, Whole
from cnn.store.refs import Kind, Ref

log = logging.getLogger(__name__)

RECORD_NAME, INDEX_NAME, REPORT_NAME = "run.json", "index.parquet", "report.html"
PIN_NAME = "pinned"
_PLACES = {".png": "figures", ".parquet": "tables", ".npy": "arrays", ".keras": "model"}
_MODEL_FILES = ("model.json", "training.json")


class StepOutcome(BaseModel):
    """What became of one step in a run."""

    model_config = ConfigDict(frozen=True)

    step: str
    state: Literal["ran", "cached", "failed"]
    why: str
    seconds: float
    ref: Ref | None = None


class Compared(BaseModel):
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
    created: Moment
    status: Literal["completed", "failed"]
    data: str
    note: str = ""
    recipe: str
    seed: Whole
    config: dict[str, Any]
    training: dict[str, Any]
    steps: tuple[StepOutcome, ...]
    headline: Headline = {}
    seconds: float
    environment: dict[str, Any] = {}
    flow_run_id: str | None = None
    deployment: str = ""
    gate: Verdict | None = None
    compared: Compared | None = None
    error: str = ""


def folder_name(created: datetime, name: str) -> str:
    """Return the name of a run's folder: its UTC time, then its name made safe for a path."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "run"
    return f"{created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{safe[:80]}"


def publish(
    runs: Path,
    record: RunRecord,
    artifacts: Mapping[Kind, Path],
    report: str = "",
    accept: Callable[[RunRecord, Path], None] = lambda record, folder: None,
) -> tuple[RunRecord, Path]:
    """Return the record and the folder of a run, in place with everything in it.

    artifacts: folders whose figures, tables, arrays and model are copied, the data set's
    aside. The folder appears complete, in one rename; the index is made anew. Where the name
    is taken, a number is added to it. Where `accept`, called in the end, raises, nothing is
    published. Raises StoreUnwritableError where the disk is full.
    """
    with files.disk_faults("the run's folder", runs):
        runs.mkdir(parents=True, exist_ok=True)
        with files.temporary_folder(_workplace(runs), record.run) as temporary:
            for kind, folder in artifacts.items():
                if kind != "dataset":
                    _copy(folder, temporary)
            if report:
                (temporary / REPORT_NAME).write_text(report, encoding="utf-8")
            record, folder = _put(runs, temporary, record)
            try:
                rebuild_index(runs)
                accept(record, folder)
            except (OSError, FilterscopeError):  # a run that the index lacks is not published
                folder.rename(temporary)
                with suppress(OSError):
                    rebuild_index(runs)
                raise
        return record, folder


def _workplace(runs: Path) -> Path:
    """Return where a run's folder is put together: beside `runs`, out of every reader's glob.

    polars, duckdb and pathlib look into hidden folders too. Only where `runs` is a
    disk of its own it has to be inside.
    """
    same_disk = runs.stat().st_dev == runs.parent.stat().st_dev
    return runs.parent if same_disk else runs


def records(runs: Path) -> Iterator[RunRecord]:
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
        return RunRecord.model_validate(documents.read(path) | {"run": folder.name})
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
    known = list(records(runs))
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


def complete_index(runs: Path) -> None:
    """Write index.parquet anew if a run was put in place after it: its process was killed then."""
    index = runs / INDEX_NAME
    placed = max((path.stat().st_ctime_ns for path in runs.glob("[!.]*/")), default=0)
    if placed > (index.stat().st_mtime_ns if index.exists() else 0):
        rebuild_index(runs)


def rebuild_index(runs: Path) -> None:
    """Write index.parquet anew from the run.json files; several processes may do so at once."""
    with (
        files.exclusive(runs / ".index.lock"),
        files.temporary_file(runs / INDEX_NAME) as temporary,
    ):
        tables.write_records(temporary, "runs", index_rows(runs))
        temporary.replace(runs / INDEX_NAME)


def place_of(name: str) -> str | None:
    """Return the folder of a run in which copies of artifacts' files of that name lie, if any."""
    return "model" if name in _MODEL_FILES else _PLACES.get(Path(name).suffix)


def is_pinned(folder: Path) -> bool:
    """Return whether a run is pinned: `gc` keeps it and what it was made from."""
    return (folder / PIN_NAME).is_file()


def pin(runs: Path, name: str) -> Path:
    """Have `gc` keep a run and what it was made from; return its folder. Raises as `find`."""
    with _pinning(runs, name) as folder:
        (folder / PIN_NAME).touch()
    return folder


def unpin(runs: Path, name: str) -> Path:
    """Let `gc` free a run again; return its folder. Raises as `find`."""
    with _pinning(runs, name) as folder:
        (folder / PIN_NAME).unlink(missing_ok=True)
    return folder


@contextmanager
def _pinning(runs: Path, name: str) -> Iterator[Path]:
    """Yield the folder of a run; `gc`, which must not be in the middle, waits meanwhile."""
    _, folder = find(runs, name)
    with files.disk_faults("the pin", folder), inuse.growing(runs.parent):
        if not folder.is_dir():
            raise ConfigError(f"run {name!r}: gc has just freed it")
        yield folder


def index_rows(runs: Path) -> list[dict[str, Any]]:
    """Return the rows of index.parquet as the run.json files have them."""
    return [_index_row(record) for record in records(runs)]


def _copy(folder: Path, target: Path) -> None:
    try:
        for path in sorted(folder.iterdir()):
            place = place_of(path.name)
            if place is not None:
                (target / place).mkdir(exist_ok=True)
                shutil.copyfile(path, target / place / path.name)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename} vanished while the run's folder was made; run again"
        ) from None


def _put(runs: Path, temporary: Path, record: RunRecord) -> tuple[RunRecord, Path]:
    """Rename the folder to the run's name, or to that name with the first free number."""
    for number in range(1, 1000):
        name = record.run if number == 1 else f"{record.run}-{number}"
        named = record.model_copy(update={"run": name})
        text = named.model_dump_json(indent=2)
        (temporary / RECORD_NAME).write_text(text, encoding="utf-8")
        try:
            if not (runs / name).exists():
                temporary.rename(runs / name)
                return named, runs / name
        except OSError:
            if not (runs / name).exists():
                raise
    raise ArtifactError(f"{runs / record.run}: a thousand runs have this name already")


def _index_row(record: RunRecord) -> dict[str, Any]:
    states = [step.state for step in record.steps]
    models = [step.ref for step in record.steps if step.ref and step.ref.kind == "model"]
    headline = record.headline
    return {
        "run": record.run,
        "created": record.created,
        "status": record.status,
        "data": record.data,
        "recipe": record.recipe,
        "seed": record.seed,
        "test_accuracy": number(headline, "test_accuracy"),
        "test_accuracy_ci_low": number(headline, "test_accuracy_ci_low"),
        "test_accuracy_ci_high": number(headline, "test_accuracy_ci_high"),
        "validation_accuracy": number(headline, "validation_accuracy"),
        "n_steps_run": states.count("ran"),
        "n_steps_cached": states.count("cached"),
        "seconds": record.seconds,
        "model_digest": models[0].digest if models else None,
        "deployment": record.deployment,
        "gate": record.gate.outcome if record.gate else None,
    }


def number(headline: Headline, name: str) -> float | None:
    """Return a figure of a headline, or None where it has none of that name."""
    value = headline.get(name)
    return None if value is None or isinstance(value, str) else float(value)
