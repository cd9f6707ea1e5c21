"""prefect.yaml fits the flow, its settings, and the automations."""

import re
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.utilities.callables import parameter_schema

from cnn.config import run as config
from deployments import automations, settings
from deployments.settings import POOL, ROOT
from flows.mine import mine
from flows.train_and_explain import train_and_explain

FILE: dict[str, Any] = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())
DEPLOYMENTS: dict[str, dict[str, Any]] = {item["name"]: item for item in FILE["deployments"]}
NAMES = ("nightly-mnist", "nightly-folder", "weekly-best", "on-demand", "mine-on-demand")
FLOWS = {
    "flows/train_and_explain.py:train_and_explain": train_and_explain,
    "flows/mine.py:mine": mine,
}


def test_there_are_these_deployments() -> None:
    """Three on a schedule, two for people."""
    assert tuple(DEPLOYMENTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_flow_and_validate(name: str) -> None:
    """A setting that was renamed or a value out of range is found here, not at night."""
    given = DEPLOYMENTS[name]["parameters"]
    flow = FLOWS[DEPLOYMENTS[name]["entrypoint"]]
    assert set(given) <= set(parameter_schema(flow).properties)
    if flow is mine:
        assert given == {}, "people name the layer"
    else:
        assert config.validate(given.get("config", {})).data.source != "auto"


def test_the_nightly_seed_is_new_each_night_and_that_of_a_folder_is_not() -> None:
    """A folder trains when its data changed; MNIST never does, so the seed has to."""
    trains = {name: DEPLOYMENTS[name]["parameters"]["config"]["train"] for name in NAMES[:3]}
    assert trains["nightly-mnist"] == {"recipe": "fast", "seed": "date"}
    assert trains["nightly-folder"] == {"recipe": "fast", "seed": 0}
    assert trains["weekly-best"] == {"recipe": "best"}
    assert DEPLOYMENTS["weekly-best"]["parameters"]["config"]["gate"] == {"track": "mnist-best"}


@pytest.mark.parametrize("name", NAMES)
def test_no_run_can_end_in_a_temporary_folder(name: str) -> None:
    """Folder, store and pages are handed over, and the worker's pool is the one that is made."""
    pool = DEPLOYMENTS[name]["work_pool"]
    assert pool["name"] == POOL
    assert pool["job_variables"] == {
        "working_dir": "{{ operator.root }}",
        "env": {
            "FILTERSCOPE_STORE": "{{ operator.store }}",
            "FILTERSCOPE_PAGES_URL": "{{ operator.pages }}",
        },
    }


def test_every_placeholder_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """With absolute paths; the schedule of the folder waits for its setting."""
    monkeypatch.delenv("FILTERSCOPE_DATA_FOLDER", raising=False)
    monkeypatch.setenv("FILTERSCOPE_STORE", "kept")
    filled = settings.for_deploying()
    used = set(re.findall(r"\{\{ operator\.(\w+) \}\}", str(FILE)))
    assert used == set(filled)
    assert all(Path(filled[name]).is_absolute() for name in ("root", "store", "data_folder"))
    assert filled["has_data_folder"] is False
    monkeypatch.setenv("FILTERSCOPE_DATA_FOLDER", "/srv/images")
    filled = settings.for_deploying()
    assert (filled["data_folder"], filled["has_data_folder"]) == ("/srv/images", True)


@pytest.mark.parametrize("name", NAMES)
def test_schedules_have_a_name_and_a_zone_and_one_run_at_a_time(name: str) -> None:
    """What collides waits: of what was missed the latest trains, see tasks/deployed.py."""
    deployment = DEPLOYMENTS[name]
    for schedule in deployment["schedules"]:
        assert schedule["slug"]
        assert ZoneInfo(schedule["timezone"])
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["tags"]
    assert deployment["description"]
    assert (ROOT / deployment["entrypoint"].partition(":")[0]).is_file()


def test_every_schedule_is_watched() -> None:
    """A deployment with a schedule has hours after which its silence is told."""
    assert set(automations.HOURS) == {n for n, d in DEPLOYMENTS.items() if d["schedules"]}
