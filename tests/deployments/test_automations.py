"""The automations as declared: their triggers, and their messages, which are JSON."""

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
    """Return the message that an automation sends, parsed from its JSON."""
    (action,) = automation.actions
    assert isinstance(action, CallWebhook)
    assert action.block_document_id == WEBHOOK
    user_templates.register_user_template_filters({"ui_url": lambda _: "http://here/run"})
    text = user_templates.render_user_template_sync(action.payload, context)
    message: dict[str, object] = json.loads(text)
    return message


def test_the_server_accepts_all_automations() -> None:
    """It validates triggers and templates on creation; all names have the prefix."""
    for automation in ALL.values():
        assert automation.name.startswith("filterscope: ")
        AutomationCreate.model_validate(automation.model_dump(mode="json"))
    assert train_and_explain.name == automations.FLOW


def test_the_message_about_a_failed_run_has_its_reason() -> None:
    """Quotes, newlines and markup in the reason do not break the JSON."""
    reason = 'data.path "x"\n<b>: \\ {{ 1 }}'
    run = SimpleNamespace(name="a-run", state=SimpleNamespace(name="Failed", message=reason))
    automation = ALL["a run failed or crashed"]
    deployment = SimpleNamespace(name="nightly-mnist")
    message = _rendered(automation, flow_run=run, deployment=deployment)
    assert message["message"] == reason
    assert message["text"] == f"nightly-mnist: a-run Failed. {reason} http://here/run"
    assert (message["event"], message["deployment"]) == ("failed", "nightly-mnist")
    assert _trigger(automation).expect == {
        "prefect.flow-run.Failed",
        "prefect.flow-run.Crashed",
        "prefect.flow-run.TimedOut",
    }


@pytest.mark.parametrize("outcome", ["promoted", "rejected"])
def test_the_message_about_a_gate_decision_has_the_metrics(outcome: str) -> None:
    """Numbers stay numbers; the text is readable by itself."""
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
    message = _rendered(automation, event=SimpleNamespace(payload=payload))
    assert payload.items() <= message.items()
    assert message["text"] == (
        f"20261125T030000Z-mnist-fast-seed1 {outcome} (mnist): every check passes; validation "
        f"accuracy 0.985, test accuracy 0.983. {payload['report']}"
    )
    assert _trigger(automation).expect == {f"filterscope.{outcome}"}


def test_a_gate_decision_without_metrics_is_still_sent() -> None:
    """Missing fields are null."""
    payload = {"track": "mnist", "run": "a-run", "because": "the file does not reload"}
    message = _rendered(ALL["the gate rejected a model"], event=SimpleNamespace(payload=payload))
    assert message["because"] == "the file does not reload"
    assert message["test_accuracy"] is None


def test_the_hours_without_a_success_count_from_the_last_one() -> None:
    """Before the first success they count from the first run that was due."""
    automation = ALL["nightly-mnist has had no success for long"]
    trigger = _trigger(automation)
    assert trigger.posture == Posture.Proactive
    assert trigger.expect == {"prefect.flow-run.Completed"} < trigger.after
    assert trigger.within.total_seconds() == 26 * 3600
    related = trigger.match_related
    assert not isinstance(related, list)
    assert related["prefect.resource.id"] == [f"prefect.deployment.{UUID(int=2)}"]
    assert _rendered(automation)["text"] == "nightly-mnist: no run has completed for 26 hours"
    assert "nightly-folder has had no success for long" not in ALL


def test_a_run_without_heartbeats_is_marked_crashed() -> None:
    """At least three must be missed; a run that has ended sends none."""
    automation = ALL["a run that is stuck is marked Crashed"]
    trigger = _trigger(automation)
    assert "prefect.flow-run.heartbeat" in trigger.after & trigger.expect
    assert {"prefect.flow-run.Completed", "prefect.flow-run.Cancelled"} < trigger.expect
    assert trigger.within.total_seconds() >= 3 * 30
    (action,) = automation.actions
    assert isinstance(action, ChangeFlowRunState)
    assert action.state.value == "CRASHED"
