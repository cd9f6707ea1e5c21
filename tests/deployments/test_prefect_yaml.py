"""prefect.yaml agrees with the flows, their settings, and the automations."""

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


def test_there_are_five_deployments() -> None:
    """Each one with a schedule has a time limit after which silence is reported."""
    assert tuple(DEPLOYMENTS) == NAMES
    assert set(automations.HOURS) == {n for n, d in DEPLOYMENTS.items() if d["schedules"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_are_valid_for_the_flow(name: str) -> None:
    """A renamed setting or a value out of range is found here, not at night."""
    given = DEPLOYMENTS[name]["parameters"]
    flow = FLOWS[DEPLOYMENTS[name]["entrypoint"]]
    assert set(given) <= set(parameter_schema(flow).properties)
    if flow is mine:
        assert given == {}, "a person chooses the layer"
    else:
        assert config.validate(given.get("config", {})).data.source != "auto"


def test_the_seed_changes_every_night_for_mnist_but_not_for_a_folder() -> None:
    """MNIST never changes, so only a new seed causes a training; a folder's data may change."""
    trains = {name: DEPLOYMENTS[name]["parameters"]["config"]["train"] for name in NAMES[:3]}
    assert trains["nightly-mnist"] == {"recipe": "fast", "seed": "date"}
    assert trains["nightly-folder"] == {"recipe": "fast", "seed": 0}
    assert trains["weekly-best"] == {"recipe": "best"}
    assert DEPLOYMENTS["weekly-best"]["parameters"]["config"]["gate"] == {"track": "mnist-best"}


@pytest.mark.parametrize("name", NAMES)
def test_no_run_works_in_a_temporary_folder(name: str) -> None:
    """Working folder, store and report server come from the settings; the work pool exists."""
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
    """Paths are absolute; nightly-folder is not scheduled without its setting."""
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
def test_schedules_have_a_name_and_a_time_zone(name: str) -> None:
    """One run at a time; others wait in a queue."""
    deployment = DEPLOYMENTS[name]
    for schedule in deployment["schedules"]:
        assert schedule["slug"]
        assert ZoneInfo(schedule["timezone"])
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["tags"]
    assert deployment["description"]
    assert (ROOT / deployment["entrypoint"].partition(":")[0]).is_file()
