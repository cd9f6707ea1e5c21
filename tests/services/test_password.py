"""One setting protects server, UI and report server with a password, and the worker knows it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from tests.commands import wait_for
from tests.services.asking import asked
from tests.services.operated import Operated

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]
PASSWORD = "admin:geheim-7f3a"
SHORT = {"data": {"source": "digits"}, "train": {"steps": 60}}


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """An installation with a password."""
    folder = tmp_path_factory.mktemp("password")
    made = Operated(folder, PREFECT_SERVER_API_AUTH_STRING=PASSWORD)
    made.auth = ("admin", "geheim-7f3a")
    with made.running():
        yield made


@pytest.mark.parametrize("auth", [None, ("admin", "wrong"), ("", "geheim-7f3a")])
def test_without_the_password_every_request_is_refused(
    operated: Operated, auth: tuple[str, str] | None
) -> None:
    """API and report server respond with 401."""
    for path in ("/deployments/filter", "/flow_runs/filter", "/block_documents/filter"):
        assert asked("POST", f"{operated.api}{path}", json={}, auth=auth).status_code == 401
    assert asked("GET", f"{operated.api}/admin/settings", auth=auth).status_code == 401
    assert httpx.get(operated.pages, auth=auth).status_code == 401


def test_with_the_password_everything_works(operated: Operated) -> None:
    """A run completes, up and status succeed, and no file contains the password."""
    assert operated.end(operated.start_run(**SHORT)) == "Completed"
    assert httpx.get(operated.pages, auth=operated.auth).status_code == 200
    assert operated.do("status").returncode == 0
    operated.up()
    for path in operated.folder.rglob("*"):
        if path.is_file() and path != operated.file:
            assert b"geheim-7f3a" not in path.read_bytes(), path


def test_a_command_without_the_password_names_the_setting(operated: Operated) -> None:
    """It fails with one message."""
    without = operated.folder / "without"
    text = operated.file.read_text()
    without.write_text(text.replace(f"PREFECT_SERVER_API_AUTH_STRING={PASSWORD}\n", ""))
    done = operated.do("automations", FILTERSCOPE_SETTINGS=str(without))
    assert done.returncode == 1
    assert "requires the right password; set PREFECT_API_AUTH_STRING" in done.stderr


def test_a_worker_of_another_installation_can_run_flows(operated: Operated, tmp_path: Path) -> None:
    """Like a second machine it has one part, and the address and the password of the first."""
    operated.do("down", "worker")
    second = Operated(tmp_path, PREFECT_API_URL=operated.api, PREFECT_API_AUTH_STRING=PASSWORD)
    try:
        done = second.do("up", "worker")
        assert done.returncode == 0, done.stderr
        assert operated.end(operated.start_run(**SHORT)) == "Completed"
        assert [line for line in second.processes() if "server start" in line] == []
    finally:
        second.do("down", "worker")
        operated.up()
    assert second.processes() == []


def test_up_and_down_know_a_part_that_runs_in_the_foreground(operated: Operated) -> None:
    """Started as systemd does it, it is the part's process, and down stops it."""
    operated.do("down", "pages")
    words = [sys.executable, "-m", "deployments.operate", "foreground", "pages"]
    started = subprocess.Popen(words, env=operated.environment(), stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: operated.do("status", "pages").returncode == 0)
        assert operated.pid("pages") == started.pid
        assert operated.do("foreground", "pages").returncode == 2
        operated.up()
        assert operated.pid("pages") == started.pid
        assert operated.do("down", "pages").returncode == 0
        started.wait(30)
    finally:
        started.kill()
        started.wait()
        operated.up()


def test_the_browser_asks_for_the_password(operated: Operated, browser: Browser) -> None:
    """The UI shows its dashboard only afterwards; the report server asks through the browser."""
    page = browser.new_page()
    page.goto(operated.api.removesuffix("/api"))
    field = page.locator("input[type=password]")
    field.wait_for(timeout=60_000)
    assert "train-and-explain" not in page.inner_text("body")
    field.fill(PASSWORD)
    field.press("Enter")
    page.get_by_text("Flow Runs").first.wait_for(timeout=60_000)
    page.close()
    context = browser.new_context(http_credentials={"username": "admin", "password": "geheim-7f3a"})
    known = context.new_page()
    answer = known.goto(operated.pages)
    assert answer is not None
    assert answer.status == 200
    assert known.inner_text("h1") == "Runs"
    context.close()
