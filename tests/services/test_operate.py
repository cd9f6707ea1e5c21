"""`make up` and what follows from it: a real server, worker, page server, and real runs."""

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

from tests.services.asking import asked
from tests.services.operated import Operated, Receiver, wait_for

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
    """An installation that runs, with messages going to the receiver."""
    made = Operated(tmp_path_factory.mktemp("operated"), FILTERSCOPE_WEBHOOK_URL=receiver.url)
    with made.running():
        yield made


def test_up_again_starts_nothing_twice(operated: Operated) -> None:
    """The same processes run; the addresses are said again; status is content."""
    before = {part: operated.pid(part) for part in ("server", "worker", "pages")}
    said = operated.up()
    assert {part: operated.pid(part) for part in before} == before
    assert "starting" not in said
    assert "automation" not in said
    status = operated.do("status")
    assert status.returncode == 0
    for address in (operated.api.removesuffix("/api"), operated.pages):
        assert address in status.stdout
        assert address in said
    assert len([line for line in operated.processes() if "server start" in line]) == 1


def test_everything_listens_on_this_machine_only(operated: Operated) -> None:
    """The kernel's own list says so."""
    listening = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            listening[int(local.split(":")[1], 16)] = local.split(":")[0]
    assert listening[operated.port] == listening[operated.pages_port] == "0100007F"
    six = Path("/proc/net/tcp6").read_text().lower()
    for port in (operated.port, operated.pages_port):
        assert f":{port:04x} 0000" not in six


def test_a_run_happens_by_itself_and_its_report_opens(operated: Operated, browser: Browser) -> None:
    """Scheduled, run by the worker in the documented folder, served by the page server."""
    deployment = operated.deployment("on-demand")["id"]
    first = datetime.now(UTC) + timedelta(seconds=8)
    schedule = {
        "active": True,
        "slug": "test",
        "parameters": {"config": SHORT},
        "schedule": {"interval": 60, "anchor_date": first.isoformat(), "timezone": "Etc/UTC"},
    }
    (made,) = operated.ask(f"/deployments/{deployment}/schedules", [schedule])
    done = {
        "flow_runs": {
            "deployment_id": {"any_": [deployment]},
            "state": {"type": {"any_": ["COMPLETED"]}},
        }
    }
    (run, *_) = wait_for(lambda: operated.ask("/flow_runs/filter", done))
    operated.ask(f"/deployments/{deployment}/schedules/{made['id']}", method="DELETE")
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
    assert min(widths) > 0, "the filters' pages have smaller ones"
    window.close()


def test_a_person_has_a_layer_of_the_latest_run_searched(operated: Operated) -> None:
    """By the worker, in the same store; what cannot be searched is said in the run's state."""
    searched = operated.start_search(layer="pool", patches_per_filter=3, one_per_image=True)
    assert operated.end(searched) == "Completed"
    (folder,) = (operated.store / "mined").glob("*-pool-*")
    assert {path.name for path in folder.iterdir()} >= {"mined.json", "patches.parquet"}
    refused = operated.start_search(run="latest", layer="conv9")
    assert operated.end(refused) == "Failed"
    assert "layer conv9: is not there" in operated.run(refused)["state"]["message"]


def test_a_part_that_died_is_started_again(operated: Operated) -> None:
    """Status says which one; up starts that one and leaves the others."""
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
    """A failed run and the gate's decision are told; the address stands nowhere else."""
    run = operated.start_run(**DIVERGING)
    assert operated.end(run) == "Failed"
    told = receiver.of(event="failed")
    assert "training diverged" in told["text"]
    assert run in told["link"]
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


def test_automations_twice_changes_nothing_and_a_change_is_brought(operated: Operated) -> None:
    """Whatever differs from its declaration is put right; what was paused stays paused."""
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
    said = operated.do("automations").stdout
    assert said == f"automation changed: {changed['name']}\n"
    now = operated.ask(f"/automations/{changed['id']}", method="GET")
    assert now["description"] == changed["description"]
    assert now["enabled"] is False
    operated.ask(f"/automations/{changed['id']}", {"enabled": True}, method="PATCH")


def test_a_deployment_without_success_is_told(operated: Operated, receiver: Receiver) -> None:
    """Its automation, with seconds in place of hours: a run that failed is no success."""
    listed = operated.ask("/automations/filter", {})
    silent = next(
        a for a in listed if a["name"].endswith("nightly-mnist has had no success for long")
    )
    body = {key: silent[key] for key in ("name", "description", "actions", "enabled")}
    shortened = {**body, "trigger": {**silent["trigger"], "within": 20}}
    operated.ask(f"/automations/{silent['id']}", shortened, method="PUT")
    identity = operated.deployment("nightly-mnist")["id"]
    values = {"parameters": {"config": DIVERGING}}
    run = operated.ask(f"/deployments/{identity}/create_flow_run", values)["id"]
    assert operated.end(run) == "Failed"
    assert "no run was completed" in receiver.of(event="silent", deployment="nightly-mnist")["text"]
    said = operated.do("automations").stdout
    assert said == f"automation changed: {silent['name']}\n"


def test_a_webhook_that_is_down_fails_no_run(operated: Operated, receiver: Receiver) -> None:
    """It is said, without the address; the run goes its way, the server notes the lost message."""
    nowhere = "http://127.0.0.1:9/hooks/geheim-7f3a"
    said = operated.do("automations", FILTERSCOPE_WEBHOOK_URL=nowhere)
    assert said.returncode == 0
    assert "FILTERSCOPE_WEBHOOK_URL: nothing answers there" in said.stdout
    assert "geheim" not in said.stdout + said.stderr
    n_before = len(receiver.messages)
    assert operated.end(operated.start_run(**DIVERGING)) == "Failed"
    assert operated.end(operated.start_run(**SHORT)) == "Completed"
    lost = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
    wait_for(lambda: operated.ask("/events/filter", lost)["events"], 60)
    assert len(receiver.messages) == n_before
    assert operated.do("automations").returncode == 0


@pytest.mark.parametrize("version", ["", "/v2"])
def test_the_form_shows_every_setting(operated: Operated, page: Page, version: str) -> None:
    """In both UIs: sections, descriptions, overrides that are empty."""
    _open_form(operated, page, version)
    text = page.inner_text("body")
    for shown in (
        "named complete training",
        "peak learning rate; that of a recipe suits adam (empty: the recipe's value)",
        "least accuracy, as a fraction",
        "number of the worst mistakes that are shown",
        "seconds between two checkpoints",
        "steps to run although they are cached",
    ):
        assert shown in text


@pytest.mark.parametrize("version", ["", "/v2"])
def test_the_form_refuses_a_bad_value(operated: Operated, page: Page, version: str) -> None:
    """Nothing is started, and the field is named."""
    n_before = operated.ask("/flow_runs/count", {})
    _open_form(operated, page, version)
    fields = page.locator("input").all()
    (field,) = [one for one in fields if one.input_value().startswith("0.083")]
    field.fill("7")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.get_by_text("config.data.validation_fraction").first.wait_for(timeout=30_000)
    assert operated.ask("/flow_runs/count", {}) == n_before


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"config": {"train": {"steps": 0}}}, "steps"),
        ({"config": {"train": {"stpes": 3}}}, "stpes"),
    ],
)
def test_parameters_that_are_wrong_are_refused_by_name(
    operated: Operated, parameters: dict[str, Any], said: str
) -> None:
    """The server refuses them before a run is made."""
    identity = operated.deployment("on-demand")["id"]
    url = f"{operated.api}/deployments/{identity}/create_flow_run"
    answer = asked("POST", url, json={"parameters": parameters})
    assert answer.status_code in (409, 422)
    assert said in answer.text


def test_a_parameter_that_the_flow_does_not_have_ends_the_run_at_once(operated: Operated) -> None:
    """Prefect's server lets it pass; the run's log names it."""
    identity = operated.deployment("on-demand")["id"]
    values = {"parameters": {"confg": {}}}
    run = operated.ask(f"/deployments/{identity}/create_flow_run", values)["id"]
    assert operated.end(run) in ("Crashed", "Failed")
    wanted = {"logs": {"flow_run_id": {"any_": [run]}}}
    said = wait_for(lambda: operated.ask("/logs/filter", wanted), 30)
    assert "provided with parameters ['confg']" in "\n".join(line["message"] for line in said)


def test_down_ends_a_training_as_a_cancel_would(operated: Operated) -> None:
    """Its state is Cancelled, nothing that was started is left, and up works again."""
    run = operated.start_run(**LONG)
    wait_for(lambda: list((operated.store / "checkpoints").glob("*")))
    said = operated.do("down")
    assert said.returncode == 0
    assert f"run {run}: Cancelled" in said.stdout
    assert operated.processes() == []
    assert operated.do("status").returncode == 3
    operated.up()
    assert operated.state(run) == "Cancelled"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """Nothing is started then; the message names port and setting."""
    installation = Operated(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", installation.pages_port))
        taken.listen()
        done = installation.do("up")
    assert done.returncode == 2
    assert f"port {installation.pages_port} of 127.0.0.1 cannot be listened on" in done.stderr
    assert "set FILTERSCOPE_PAGES_PORT to another port" in done.stderr
    assert installation.processes() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"FILTERSCOPE_STORE": "/proc/nothing"}, "store /proc/nothing: cannot be written"),
        (
            {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://"
                "prefect:geheim@127.0.0.1:9/prefect"
            },
            "database: PostgreSQL at 127.0.0.1:9, database 'prefect', user 'prefect', does not",
        ),
        (
            {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://x:geheim@y:z/db"},
            "PREFECT_SERVER_DATABASE_CONNECTION_URL is refused",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    """With what to do about it, without passwords, without a traceback."""
    installation = Operated(tmp_path, **settings)
    done = installation.do("up")
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "geheim" not in done.stderr
    assert "Traceback" not in done.stderr
    assert installation.processes() == []


def test_an_api_that_is_none_or_of_another_version_is_said(tmp_path: Path) -> None:
    """Address, both versions, and what to do."""
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
    assert "is of version 2.20.1; this installation has 3." in done.stderr
    assert done.returncode == 1


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _emit(operated: Operated, event: str, payload: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": "filterscope.track.digits"}
    told = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": event}
    operated.ask("/events", [{**told, "resource": resource, "payload": payload}])


def _open_form(operated: Operated, page: Page, version: str) -> None:
    identity = operated.deployment("on-demand")["id"]
    server = operated.api.removesuffix("/api")
    page.goto(f"{server}{version}/deployments/deployment/{identity}/run")
    page.get_by_text("what a reader of the report should know").wait_for(timeout=60_000)
