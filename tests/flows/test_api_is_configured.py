"""Whether an API is configured: the command's quick check agrees with Prefect."""

import json
from pathlib import Path

import pytest

from tests import commands

pytestmark = pytest.mark.slow

URL = "http://127.0.0.1:9/api"
SCRIPT = """
import json, sys
from flows import prefect_settings
found = prefect_settings.api_is_configured()
imported = "prefect" in sys.modules
from prefect.settings import get_current_settings
print(json.dumps([found, imported, bool(get_current_settings().api.url)]))
"""
PROFILE = f'[profiles.mine]\nPREFECT_API_URL = "{URL}"\n'


def check(folder: Path, files: dict[str, str], variables: dict[str, str]) -> list[bool]:
    """Return what the command finds, whether it imported Prefect, and what Prefect finds.

    files: texts by path; home/ is Prefect's home, work/ the current folder.
    """
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "work").mkdir(exist_ok=True)
    environment = commands.environment(
        folder, **{"PREFECT_HOME": str(folder / "home"), **variables}
    )
    environment = {name: value for name, value in environment.items() if value}
    done = commands.run_python(SCRIPT, environment=environment, cwd=folder / "work")
    found: list[bool] = json.loads(done.stdout.splitlines()[-1])
    return found


Cases = dict[str, tuple[dict[str, str], dict[str, str]]]
NAMED: Cases = {
    "environment": ({}, {"PREFECT_API_URL": URL}),
    "environment, lower case": ({}, {"prefect_api_url": URL}),
    "active profile": ({"home/profiles.toml": f'active = "mine"\n{PROFILE}'}, {}),
    "profile in the environment": (
        {"home/profiles.toml": f'active = "other"\n[profiles.other]\n{PROFILE}'},
        {"PREFECT_PROFILE": "mine"},
    ),
    "profile of the default home": (
        {".prefect/profiles.toml": f'active = "mine"\n{PROFILE}'},
        {"PREFECT_HOME": ""},
    ),
    "profiles at another path": (
        {"elsewhere.toml": f'active = "mine"\n{PROFILE}'},
        {"PREFECT_PROFILES_PATH": "../elsewhere.toml"},
    ),
    "prefect.toml": ({"work/prefect.toml": f'[api]\nurl = "{URL}"\n'}, {}),
    ".env": ({"work/.env": f"PREFECT_API_URL={URL}\n"}, {}),
    ".env, lower case": ({"work/.env": f"prefect_api_url={URL}\n"}, {}),
    ".env names other profiles": (
        {
            "work/.env": "PREFECT_PROFILES_PATH=../elsewhere.toml\n",
            "elsewhere.toml": f'active = "mine"\n{PROFILE}',
        },
        {},
    ),
    "pyproject.toml": ({"work/pyproject.toml": f'[tool.prefect.api]\nurl = "{URL}"\n'}, {}),
    "pyproject.toml, dotted": ({"work/pyproject.toml": f'[tool]\nprefect.api.url = "{URL}"\n'}, {}),
    "pyproject.toml, spaced": (
        {"work/pyproject.toml": f'[ tool . "prefect" ]\napi = {{url = "{URL}"}}\n'},
        {},
    ),
}
SILENT: Cases = {
    "nothing": ({}, {}),
    "another variable": ({}, {"PREFECT_LOGGING_LEVEL": "INFO"}),
    "a profile without an API": (
        {"home/profiles.toml": 'active = "mine"\n[profiles.mine]\nPREFECT_LOGGING_LEVEL = "INFO"'},
        {},
    ),
    "a pyproject of something else": ({"work/pyproject.toml": '[project]\nname = "x"\n'}, {}),
    "an .env of something else": ({"work/.env": "COLOUR=blue\n"}, {}),
}
UNCLEAR: Cases = {
    "another profile is active": (
        {"home/profiles.toml": f'active = "other"\n[profiles.other]\n{PROFILE}'},
        {},
    ),
    "prefect.toml says other things": ({"work/prefect.toml": '[logging]\nlevel = "INFO"\n'}, {}),
}


@pytest.mark.parametrize("way", NAMED)
def test_an_api_is_found_wherever_prefect_looks_for_one(tmp_path: Path, way: str) -> None:
    """A run that Prefect would record there must not be skipped because nothing is to do."""
    found, _, prefect_finds = check(tmp_path, *NAMED[way])
    assert prefect_finds, "Prefect itself finds no API: the test is wrong"
    assert found


@pytest.mark.parametrize("way", SILENT)
def test_if_nothing_mentions_an_api_prefect_is_not_imported(tmp_path: Path, way: str) -> None:
    """The import alone takes a second."""
    assert check(tmp_path, *SILENT[way]) == [False, False, False]


@pytest.mark.parametrize("way", UNCLEAR)
def test_if_something_might_mention_an_api_prefect_decides(tmp_path: Path, way: str) -> None:
    """The API of an inactive profile does not count."""
    assert check(tmp_path, *UNCLEAR[way]) == [False, True, False]
