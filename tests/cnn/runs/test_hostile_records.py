"""Run folders and records with hostile content affect no other run and no other folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import ArtifactError, ConfigError
from cnn.runs import index, records
from cnn.tables import parquet, schemas
from tests.cnn.runs.published import indexed, names, publish, record


def test_a_run_has_the_name_of_its_folder(tmp_path: Path) -> None:
    """A different name in the record leads to no other folder."""
    runs_folder = tmp_path / "runs"
    item = publish(runs_folder, record())
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("../outside", str(outside), "other"):
        path = runs_folder / item.run / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run": name}))
        found, folder = records.find(runs_folder, "latest")
        assert (found.run, folder) == (item.run, runs_folder / item.run)
        with pytest.raises(ConfigError, match="no run of that name"):
            records.find(runs_folder, name)
    (runs_folder / item.run).rename(runs_folder / "the good one")
    assert records.find(runs_folder, "the good one")[1] == runs_folder / "the good one"
    index.rebuild(runs_folder)
    assert names(runs_folder) == ["the good one"]


def test_a_run_whose_folder_is_a_link_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the link, which is not followed."""
    item = publish(tmp_path / "runs", record())
    (tmp_path / "runs" / item.run).rename(tmp_path / "elsewhere")
    (tmp_path / "runs" / item.run).symlink_to(tmp_path / "elsewhere")
    assert list(records.read_all(tmp_path / "runs")) == []
    assert "is a link, which is not followed" in caplog.text


PLANTED: dict[str, str | dict[str, Any]] = {
    "an empty file": "",
    "half a file": "{",
    "no fields": "{}",
    "a time without a zone": {"created": "2026-03-01T12:30:45"},
    "a time before year 1 in UTC": {"created": "0001-01-01T00:00:00+14:00"},
    "a seed beyond int64": {"seed": 2**63},
    "a seed beyond float64": {"seed": 10**400},
    "an accuracy beyond float64": {"headline": {"test_accuracy": 10**400}},
    "a lone surrogate": {"data": "\ud800"},
    "a nested lone surrogate": {"config": {"a": ["\ud800"]}},
    "NaN": {"seconds": float("nan")},
    "an unknown state of a step": {"steps": [{"step": "x", "state": "perhaps"}]},
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_malformed_record_hides_no_other_run(
    tmp_path: Path, planted: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other run is listed and in the index; each warning is one line that names the file."""
    bad, good = publish(tmp_path, record("bad", seconds=-60)), publish(tmp_path, record("good"))
    path = tmp_path / bad.run / "run.json"
    damage = PLANTED[planted]
    text = json.dumps(json.loads(path.read_text()) | damage) if isinstance(damage, dict) else damage
    path.write_text(text)
    caplog.clear()
    assert [item.run for item in records.read_all(tmp_path)] == [good.run]
    index.rebuild(tmp_path)
    assert names(tmp_path) == [good.run]
    assert {item.levelname for item in caplog.records} == {"WARNING"}
    assert all(str(path) in item.getMessage() for item in caplog.records)
    assert "\n" not in caplog.records[0].getMessage()
    with pytest.raises(ArtifactError, match=f"{path}: cannot be read"):
        records.read(path.parent)


def test_text_in_place_of_a_metric_is_null_in_the_index(tmp_path: Path) -> None:
    """A headline may hold text; the column keeps its type."""
    item = publish(tmp_path, record(headline={"test_accuracy": "high", "validation_accuracy": 1}))
    (row,) = indexed(tmp_path)
    assert (row["run"], row["test_accuracy"], row["validation_accuracy"]) == (item.run, None, 1.0)
    assert parquet.read(tmp_path / "index.parquet").schema.equals(schemas.SCHEMAS["runs"])


def test_a_run_whose_name_is_not_utf8_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a name cannot be written to a table; the other runs are in the index."""
    item = publish(tmp_path, record("bad"))
    good = publish(tmp_path, record("good"))
    (tmp_path / item.run).rename(tmp_path / "\udcff-bad")
    index.rebuild(tmp_path)
    assert names(tmp_path) == [good.run]
    assert "this run is skipped" in caplog.text
