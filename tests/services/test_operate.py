"""`make up` and the operator's other commands: a real server, worker, report server and runs."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page

from tests.commands import wait_for
from tests.services.asking import asked
from tests.services.operated import Operated, Receiver

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]
SHORT = {"data": {"source": "digits"}, "train": {"steps": 60}}
DIVERGING = {"data": {"source": "digits"}, "train": {"steps": 60, "learning_rate": 1e9}}
LONG = {"data": {"source": "digits"}, "train": {"steps": 100_000}}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver of messages."""
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Operated]:
    """A running installation, which sends its messages to the receiver."""
    made = Operated(tmp_path_factory.mktemp("operated"), FILTERSCOPE_WEBHOOK_URL=receiver.url)
    with made.running():
        yield made


def test_up_again_starts_nothing_twice(operated: Operated) -> None:
    """The same processes run; the addresses are printed again; status succeeds."""
    before = {part: operated.pid(part) for part in ("server", "worker", "pages")}
    output = operated.up()
    assert {part: operated.pid(part) for part in before} == before
    assert "starting" not in output
    assert "automation" not in output
    status = operated.do("status")
    assert status.returncode == 0
    for address in (operated.api.removesuffix("/api"), operated.pages):
        assert address in status.stdout
        assert address in output
    assert len([line for line in operated.processes() if "server start" in line]) == 1


def test_everything_listens_on_this_machine_only(operated: Operated) -> None:
    """The kernel's list of sockets shows it."""
    listening = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            listening[int(local.split(":")[1], 16)] = local.split(":")[0]
    assert listening[operated.port] == listening[operated.pages_port] == "0100007F"
    six = Path("/proc/net/tcp6").read_text().lower()
    for port in (operated.port, operated.pages_port):
        assert f":{port:04x} 0000" not in six


def test_a_scheduled_run_completes_and_its_report_opens(
    operated: Operated, browser: Browser
) -> None:
    """The worker runs it in the documented store; the report server serves its report."""
    deployment = operated.deployment("on-demand")["id"]
    first = datetime.now(UTC) + timedelta(seconds=8)
    schedule = {
        "active": True,
        "slug": "test",
        "parameters": {"config": SHORT},
        "schedule": {"interval": 60, "anchor_date": first.isoformat(), "timezone": "Etc/UTC"},
    }
    (created,) = operated.ask(f"/deployments/{deployment}/schedules", [schedule])
    completed = {
        "deployment_id": {"any_": [deployment]},
        "state": {"type": {"any_": ["COMPLETED"]}},
    }
    (run, *_) = wait_for(lambda: operated.ask("/flow_runs/filter", {"flow_runs": completed}))
    operated.ask(f"/deployments/{deployment}/schedules/{created['id']}", method="DELETE")
    assert run["auto_scheduled"]
    assert run["parameters"]["config"] == SHORT
    (folder,) = (operated.store / "runs").glob("2*")
    window = browser.new_page()
    window.goto(operated.pages)
    window.get_by_text(folder.name).click()
    window.get_by_text("What ran, and why").wait_for(timeout=30_000)
    window.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    widths = window.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths.count(1040) == 13
    assert min(widths) > 0, "pages of filters have smaller images"
    window.close()


def test_a_person_can_search_a_layer_of_the_latest_run(operated: Operated) -> None:
    """The worker searches in the same store; the state of a refused search names the reason."""
    searched = operated.start_search(layer="pool", patches_per_filter=3, one_per_image=True)
    assert operated.end(searched) == "Completed"
    (folder,) = (operated.store / "mined").glob("*-pool-*")
    assert {path.name for path in folder.iterdir()} >= {"mined.json", "patches.parquet"}
    refused = operated.start_search(run="latest", layer="conv9")
    assert operated.end(refused) == "Failed"
    assert "layer conv9: not found" in operated.run(refused)["state"]["message"]


def test_a_part_that_died_is_started_again(operated: Operated) -> None:
    """Status shows which part died; up starts only that one."""
    server, worker = operated.pid("server"), operated.pid("worker")
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: operated.do("status").returncode == 3)
    (line,) = [x for x in operated.do("status").stdout.splitlines() if x.startswith("worker")]
    assert "not running" in line
    operated.up()
    assert operated.pid("worker") != worker
    assert operated.pid("server") == server


def test_messages_are_sent_and_their_address_stays_secret(
    operated: Operated, receiver: Receiver
) -> None:
    """Messages report a failed run and the gate's decision; no file or response has the address."""
    run = operated.start_run(**DIVERGING)
    assert operated.end(run) == "Failed"
    message = receiver.of(event="failed")
    assert "training diverged" in message["text"]
    assert run in message["link"]
    payload = {"track": "digits", "run": "a-run", "because": "min_accuracy", "test_accuracy": 0.5}
    _emit(operated, "filterscope.rejected", payload)
    assert receiver.of(event="rejected", track="digits")["test_accuracy"] == 0.5
    secret = receiver.url.rpartition("/")[2]
    for path in operated.folder.rglob("*"):
        if path.is_file() and path != operated.file:
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in str(operated.ask("/automations/filter", {}))
    assert secret not in str(operated.ask("/block_documents/filter", {}))
    assert secret not in str(operated.ask("/events/filter", {"limit": 50}))


def test_automations_restores_only_what_differs_from_its_declaration(operated: Operated) -> None:
    """Repeating it changes nothing; an automation that was paused stays paused."""
    listed = sorted(operated.ask("/automations/filter", {}), key=lambda item: str(item["name"]))
    assert operated.do("automations").stdout == ""
    again = sorted(operated.ask("/automations/filter", {}), key=lambda item: str(item["name"]))
    assert again == listed
    changed = listed[0]
    body = {k: changed[k] for k in ("name", "trigger", "actions")} | {
        "description": "other",
        "enabled": False,
    }
    operated.ask(f"/automations/{changed['id']}", body, method="PUT")
    output = operated.do("automations").stdout
    assert output == f"automation changed: {changed['name']}\n"
    now = operated.ask(f"/automations/{changed['id']}", method="GET")
    assert now["description"] == changed["description"]
    assert now["enabled"] is False
    operated.ask(f"/automations/{changed['id']}", {"enabled": True}, method="PATCH")


def test_a_deployment_without_success_is_reported(operated: Operated, receiver: Receiver) -> None:
    """A failed run does not count as a success; the automation waits seconds instead of hours."""
    listed = operated.ask("/automations/filter", {})
    silent = next(
        a for a in listed if a["name"].endswith("nightly-mnist has had no success for long")
    )
    body = {key: silent[key] for key in ("name", "description", "actions", "enabled")}
    shortened = {**body, "trigger": {**silent["trigger"], "within": 20}}
    operated.ask(f"/automations/{silent['id']}", shortened, method="PUT")
    assert operated.end(operated.create_run("nightly-mnist", {"config": DIVERGING})) == "Failed"
    assert "no run has completed" in receiver.of(event="silent", deployment="nightly-mnist")["text"]
    output = operated.do("automations").stdout
    assert output == f"automation changed: {silent['name']}\n"


def test_a_webhook_that_is_down_fails_no_run(operated: Operated, receiver: Receiver) -> None:
    """A warning hides the address, runs end as usual, and the server records the lost message."""
    nowhere = "http://127.0.0.1:9/hooks/geheim-7f3a"
    done = operated.do("automations", FILTERSCOPE_WEBHOOK_URL=nowhere)
    assert done.returncode == 0
    assert "FILTERSCOPE_WEBHOOK_URL: nothing answers there" in done.stdout
    assert "geheim" not in done.stdout + done.stderr
    n_before = len(receiver.messages)
    assert operated.end(operated.start_run(**DIVERGING)) == "Failed"
    assert operated.end(operated.start_run(**SHORT)) == "Completed"
    lost = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
    wait_for(lambda: operated.ask("/events/filter", lost)["events"], 60)
    assert len(receiver.messages) == n_before
    assert operated.do("automations").returncode == 0


@pytest.mark.parametrize("version", ["", "/v2"])
def test_the_form_shows_every_setting(operated: Operated, page: Page, version: str) -> None:
    """Both UIs show sections, descriptions, and empty overrides."""
    _open_form(operated, page, version)
    text = page.inner_text("body")
    for shown in (
        "name of a complete set of training settings",
        "peak learning rate; the recipes' rates suit adam (empty: the recipe's value)",
        "minimum accuracy, as a fraction",
        "number of the worst mistakes to show",
        "seconds between two checkpoints",
        "steps to run even if they are cached",
    ):
        assert shown in text


@pytest.mark.parametrize("version", ["", "/v2"])
def test_the_form_refuses_a_bad_value(operated: Operated, page: Page, version: str) -> None:
    """No run is started, and the form names the field."""
    n_before = operated.ask("/flow_runs/count", {})
    _open_form(operated, page, version)
    fields = page.locator("input").all()
    (field,) = [one for one in fields if one.input_value().startswith("0.083")]
    field.fill("7")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.get_by_text("config.data.validation_fraction").first.wait_for(timeout=30_000)
    assert operated.ask("/flow_runs/count", {}) == n_before


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"config": {"train": {"steps": 0}}}, "steps"),
        ({"config": {"train": {"stpes": 3}}}, "stpes"),
    ],
)
def test_wrong_parameters_are_refused_by_name(
    operated: Operated, parameters: dict[str, Any], name: str
) -> None:
    """The server refuses them before it creates a run."""
    identity = operated.deployment("on-demand")["id"]
    url = f"{operated.api}/deployments/{identity}/create_flow_run"
    answer = asked("POST", url, json={"parameters": parameters})
    assert answer.status_code in (409, 422)
    assert name in answer.text


def test_a_parameter_that_the_flow_does_not_have_ends_the_run_at_once(operated: Operated) -> None:
    """Prefect's server accepts it; the run's log names it."""
    run = operated.create_run("on-demand", {"confg": {}})
    assert operated.end(run) in ("Crashed", "Failed")
    wanted = {"logs": {"flow_run_id": {"any_": [run]}}}
    lines = wait_for(lambda: operated.ask("/logs/filter", wanted), 30)
    assert "provided with parameters ['confg']" in "\n".join(line["message"] for line in lines)


def test_down_cancels_a_running_training(operated: Operated) -> None:
    """Its state is Cancelled, no process is left, and up works again."""
    run = operated.start_run(**LONG)
    wait_for(lambda: list((operated.store / "checkpoints").glob("*")))
    done = operated.do("down")
    assert done.returncode == 0
    assert f"run {run}: Cancelled" in done.stdout
    assert operated.processes() == []
    assert operated.do("status").returncode == 3
    operated.up()
    assert operated.state(run) == "Cancelled"


def test_a_port_that_is_in_use_is_named(tmp_path: Path) -> None:
    """Nothing is started; the message names port and setting."""
    installation = Operated(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", installation.pages_port))
        taken.listen()
        done = installation.do("up")
    assert done.returncode == 2
    assert f"port {installation.pages_port} of 127.0.0.1 is not available" in done.stderr
    assert "set FILTERSCOPE_PAGES_PORT to another port" in done.stderr
    assert installation.processes() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FILTERSCOPE_STORE": "/proc/nothing"}, "store /proc/nothing: cannot be written"),
        (
            {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://"
                "prefect:geheim@127.0.0.1:9/prefect"
            },
            "database: cannot connect to PostgreSQL at 127.0.0.1:9, database 'prefect', user",
        ),
        (
            {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://x:geheim@y:z/db"},
            "PREFECT_SERVER_DATABASE_CONNECTION_URL is refused",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    """The message contains no password, and there is no traceback."""
    installation = Operated(tmp_path, **settings)
    done = installation.do("up")
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "geheim" not in done.stderr
    assert "Traceback" not in done.stderr
    assert installation.processes() == []


def test_an_unreachable_api_or_one_of_another_version_is_refused(tmp_path: Path) -> None:
    """The message has the address, or both versions."""
    installation = Operated(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    done = installation.do("automations")
    assert "Prefect's API at http://127.0.0.1:9/api cannot be reached" in done.stderr
    program = (
        "from http.server import *\n"
        "class H(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'\"2.20.1\"')\n"
        f"HTTPServer(('127.0.0.1', {installation.port}), H).serve_forever()\n"
    )
    old = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(installation.port))
        done = installation.do("automations", PREFECT_API_URL=installation.api)
    finally:
        old.kill()
        old.wait()
    assert "has version 2.20.1, this installation has 3." in done.stderr
    assert done.returncode == 1


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _emit(operated: Operated, event: str, payload: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": "filterscope.track.digits"}
    values = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": event}
    operated.ask("/events", [{**values, "resource": resource, "payload": payload}])


def _open_form(operated: Operated, page: Page, version: str) -> None:
    identity = operated.deployment("on-demand")["id"]
    server = operated.api.removesuffix("/api")
    page.goto(f"{server}{version}/deployments/deployment/{identity}/run")
    page.get_by_text("what a reader of the report should know").wait_for(timeout=60_000)
