"""Promotion of a run by hand: of a newer run, or of an earlier one again."""

from pathlib import Path

from cnn.config.run import GateConfig
from cnn.errors import ArtifactError, ConfigError
from cnn.promotion import candidate as candidates
from cnn.promotion import gate, registry
from cnn.promotion.candidate import Candidate
from cnn.runs import folders, records
from cnn.runs.records import RunRecord
from cnn.store import digests
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store


def promote(store: Store, name: str, because: str, track: str | None) -> tuple[RunRecord, str]:
    """Promote a run; return its record and the track, by default the one its gate decided on.

    The run must be complete and unchanged and have the track's data and classes, and its model
    must reproduce the evaluation in a fresh process. Raises ConfigError or ArtifactError
    otherwise.
    """
    if not because.strip():
        raise ConfigError("--because is empty; give a reason for the track's history")
    record, folder = records.find(store.runs, name)
    refs = _refs(record)
    track = track or (record.gate.track if record.gate else registry.track_name(record.data))
    artifacts = {kind: store.open(ref) for kind, ref in refs.items()}
    candidate = Candidate(artifacts, refs["model"], record.data, record.headline)
    _refuse_changed(store, record, folder)
    with registry.locked(store.root, track):
        incumbent = registry.current(store.root, track)
        if incumbent and incumbent.run == record.run:
            raise ConfigError(f"{record.run} is already promoted on track {track}")
        if incumbent:
            candidates.refuse_other_task(candidate, incumbent)
        if failed := gate.failed(candidates.isolation_checks(candidate, GateConfig())):
            raise ArtifactError(f"{record.run} is not promoted: {failed}")
        entry = registry.promotion_of(record, because.strip(), refs["model"].digest)
        registry.promote(store.root, track, folder, artifacts["dataset"], entry)
    return record, track


def _refs(record: RunRecord) -> dict[Kind, Ref]:
    """Return a run's refs by kind; raises ConfigError if the run did not complete."""
    refs = {step.ref.kind: step.ref for step in record.steps if step.ref}
    if record.status != "completed" or not {"dataset", "model", "evaluation"} <= refs.keys():
        raise ConfigError(f"{record.run} failed; choose a run that completed")
    return {kind: refs[kind] for kind in ("dataset", "model", "evaluation")}


def _refuse_changed(store: Store, record: RunRecord, folder: Path) -> None:
    """Raise ArtifactError if a file in the run's folder is missing or was changed."""
    for name, sha256 in folders.copies(store, record):
        path = folder / name
        if not path.is_file() or digests.file_digest(path) != sha256:
            raise ArtifactError(
                f"{path} is missing or was changed since the run; start the run again"
            )
