"""The automations as declared: what they watch, and that their messages are JSON."""

import json
from types import SimpleNamespace
from uuid import UUID

import pytest
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.server.utilities import user_templates

from deployments import automations
from flows.train_and_explain import train_and_explain

WEBHOOK = UUID(int=1)
DEPLOYMENTS = {"nightly-mnist": UUID(int=2), "weekly-best": UUID(int=3)}
ALL = {
    item.name.removeprefix(automations.PREFIX): item
    for item in [automations.stuck(), *automations.messages(WEBHOOK, DEPLOYMENTS)]
}


def _trigger(automation: AutomationCore) -> EventTrigger:
    assert isinstance(automation.trigger, EventTrigger)
    return automation.trigger


def _rendered(automation: AutomationCore, **context: object) -> dict[str, object]:
    """Return the message that an automation sends, as its receiver reads it."""
    (action,) = automation.actions
    assert isinstance(action, CallWebhook)
    assert action.block_document_id == WEBHOOK
    user_templates.register_user_template_filters({"ui_url": lambda _: "http://here/run"})
    text = user_templates.render_user_template_sync(action.payload, context)
    told: dict[str, object] = json.loads(text)
    return told


def test_all_carry_the_prefix_and_the_server_takes_them() -> None:
    """The server validates triggers and templates when they are made."""
    for automation in ALL.values():
        assert automation.name.startswith("filterscope: ")
        AutomationCreate.model_validate(automation.model_dump(mode="json"))
    assert train_and_explain.name == automations.FLOW


def test_a_run_that_failed_is_told_with_its_reason_whatever_that_holds() -> None:
    """Quotes, line ends and markup in a reason do not break the JSON."""
    reason = 'data.path "x"\n<b>: \\ {{ 1 }}'
    run = SimpleNamespace(name="a-run", state=SimpleNamespace(name="Failed", message=reason))
    told = _rendered(
        ALL["a run failed or crashed"],
        flow_run=run,
        deployment=SimpleNamespace(name="nightly-mnist"),
    )
    assert told["message"] == reason
    assert told["text"] == f"nightly-mnist: a-run Failed. {reason} http://here/run"
    assert (told["event"], told["deployment"]) == ("failed", "nightly-mnist")
    assert _trigger(ALL["a run failed or crashed"]).expect == {
        "prefect.flow-run.Failed",
        "prefect.flow-run.Crashed",
        "prefect.flow-run.TimedOut",
    }


@pytest.mark.parametrize("outcome", ["promoted", "rejected"])
def test_the_gates_decision_is_told_with_figures(outcome: str) -> None:
    """Numbers stay numbers; the text reads by itself."""
    payload = {
        "track": "mnist",
        "run": "20261125T030000Z-mnist-fast-seed1",
        "outcome": outcome,
        "because": "every check passes",
        "data": "mnist",
        "recipe": "fast",
        "seed": 1,
        "validation_accuracy": 0.985,
        "test_accuracy": 0.983,
        "report": "http://127.0.0.1:4201/20261125T030000Z-mnist-fast-seed1/report.html",
    }
    automation = ALL[f"the gate {outcome} a model"]
    told = _rendered(automation, event=SimpleNamespace(payload=payload))
    assert payload.items() <= told.items()
    assert told["text"] == (
        f"20261125T030000Z-mnist-fast-seed1 {outcome} (mnist): every check passes; validation "
        f"accuracy 0.985, test accuracy 0.983. {payload['report']}"
    )
    assert _trigger(automation).expect == {f"filterscope.{outcome}"}


def test_a_decision_with_fewer_figures_is_told_all_the_same() -> None:
    """What is missing is null; a message is not lost for it."""
    payload = {"track": "mnist", "run": "a-run", "because": "the file does not reload"}
    told = _rendered(ALL["the gate rejected a model"], event=SimpleNamespace(payload=payload))
    assert told["because"] == "the file does not reload"
    assert told["test_accuracy"] is None


def test_silence_is_counted_from_the_last_success() -> None:
    """A success begins the hours anew; a run that is only due begins them when nothing did."""
    automation = ALL["nightly-mnist has had no success for long"]
    trigger = _trigger(automation)
    assert trigger.posture == Posture.Proactive
    assert trigger.expect == {"prefect.flow-run.Completed"} < trigger.after
    assert trigger.within.total_seconds() == 26 * 3600
    related = trigger.match_related
    assert not isinstance(related, list)
    assert related["prefect.resource.id"] == [f"prefect.deployment.{UUID(int=2)}"]
    assert _rendered(automation)["text"] == "nightly-mnist: no run was completed for 26 hours"
    assert "nightly-folder has had no success for long" not in ALL


def test_a_run_without_heartbeats_is_marked_crashed() -> None:
    """Several of them are missed first, and every other end of a run counts as one."""
    automation = ALL["a run that is stuck is marked Crashed"]
    trigger = _trigger(automation)
    assert "prefect.flow-run.heartbeat" in trigger.after & trigger.expect
    assert {"prefect.flow-run.Completed", "prefect.flow-run.Cancelled"} < trigger.expect
    assert trigger.within.total_seconds() >= 3 * 30
    (action,) = automation.actions
    assert isinstance(action, ChangeFlowRunState)
    assert action.state.value == "CRASHED"
