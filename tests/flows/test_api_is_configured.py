"""Whether an API is configured: the command's quick look agrees with what Prefect finds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

URL = "http://127.0.0.1:9/api"
SCRIPT = """
import json, sys
from flows import prefect_settings
found = prefect_settings.api_is_configured()
asked = "prefect" in sys.modules
from prefect.settings import get_current_settings
print(json.dumps([found, asked, bool(get_current_settings().api.url)]))
"""
PROFILE = f'[profiles.mine]\nPREFECT_API_URL = "{URL}"\n'


def look(folder: Path, files: dict[str, str], variables: dict[str, str]) -> list[bool]:
    """Return what the command finds, whether it asked Prefect, and what Prefect finds.

    files: texts by path, "home/" standing for Prefect's home, all else for the working folder.
    """
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "work").mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "home"),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={name: value for name, value in environment.items() if value},
        cwd=folder / "work",
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[bool] = json.loads(done.stdout.splitlines()[-1])
    return found


NAMED: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "environment": ({}, {"PREFECT_API_URL": URL}),
    "environment, in small letters": ({}, {"prefect_api_url": URL}),
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
    ".env, in small letters": ({"work/.env": f"prefect_api_url={URL}\n"}, {}),
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
SILENT: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nothing": ({}, {}),
    "an empty variable": ({}, {"PREFECT_LOGGING_LEVEL": "INFO"}),
    "a profile without an API": (
        {"home/profiles.toml": 'active = "mine"\n[profiles.mine]\nPREFECT_LOGGING_LEVEL = "INFO"'},
        {},
    ),
    "a pyproject of something else": ({"work/pyproject.toml": '[project]\nname = "x"\n'}, {}),
    "an .env of something else": ({"work/.env": "COLOUR=blue\n"}, {}),
}
OTHERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "another profile is active": (
        {"home/profiles.toml": f'active = "other"\n[profiles.other]\n{PROFILE}'},
        {},
    ),
    "prefect.toml says other things": ({"work/prefect.toml": '[logging]\nlevel = "INFO"\n'}, {}),
}


@pytest.mark.parametrize("way", NAMED)
def test_an_api_is_found_wherever_prefect_looks_for_one(tmp_path: Path, way: str) -> None:
    """A run that Prefect would record there must not be skipped as nothing to do."""
    found, _, prefect_finds = look(tmp_path, *NAMED[way])
    assert prefect_finds, "Prefect itself finds no API: the test is wrong"
    assert found


@pytest.mark.parametrize("way", SILENT)
def test_where_nothing_speaks_of_an_api_prefect_is_not_imported(tmp_path: Path, way: str) -> None:
    """Nothing to do costs nothing: the import alone takes a second."""
    assert look(tmp_path, *SILENT[way]) == [False, False, False]


@pytest.mark.parametrize("way", OTHERS)
def test_where_something_may_speak_of_an_api_prefect_decides(tmp_path: Path, way: str) -> None:
    """An API of a profile that is not active is none."""
    assert look(tmp_path, *OTHERS[way]) == [False, True, False]
