"""Declares the Prefect automations: which event sends which message.

The webhook's address is kept in a secret block only, never in a definition.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

PREFIX = "filterscope: "
FLOW = "train-and-explain"
# Seconds without a heartbeat (one is sent every 30) after which a run counts as dead.
STUCK_SECONDS = 120
# Hours without a success after which a scheduled deployment is reported.
HOURS = {"nightly-mnist": 26.0, "nightly-folder": 26.0, "weekly-best": 7 * 24 + 8.0}
_OF_FLOW = {"prefect.resource.role": "flow", "prefect.resource.name": FLOW}
_RUNS = {"prefect.resource.id": "prefect.flow-run.*"}
_ENDS = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled")}
_BAD_ENDS = {f"prefect.flow-run.{name}" for name in ("Failed", "Crashed", "TimedOut")}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_GATE_FIELDS = (
    *("track", "run", "outcome", "because", "data", "recipe", "seed"),
    *("validation_accuracy", "test_accuracy", "report"),
)


def stuck() -> AutomationCore:
    """Return the automation that marks a run Crashed when its heartbeats stop."""
    return AutomationCore(
        name=f"{PREFIX}a run that is stuck is marked Crashed",
        description=f"No heartbeat for {STUCK_SECONDS} s: its process or machine is gone.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, "prefect.flow-run.TimedOut", *_ENDS},
            match=_RUNS,
            match_related=_OF_FLOW,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=STUCK_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"No heartbeat for {STUCK_SECONDS} s: the process or its machine is gone.",
            )
        ],
    )


def messages(
    webhook: UUID, deployments: Mapping[str, UUID], hours: Mapping[str, float] = HOURS
) -> list[AutomationCore]:
    """Return the automations that send messages to a webhook block.

    deployments: ids of the deployments with a schedule, by name.
    """
    silent = [
        _silent(webhook, name, deployments[name], n)
        for name, n in hours.items()
        if name in deployments
    ]
    gate = [_gate(webhook, outcome) for outcome in ("promoted", "rejected")]
    return [_failed(webhook), *gate, *silent]


def _failed(webhook: UUID) -> AutomationCore:
    deployment = "deployment.name or 'no deployment'"
    text = (
        f"({deployment}) ~ ': ' ~ flow_run.name ~ ' ' ~ flow_run.state.name ~ '. ' ~ "
        "(flow_run.state.message or '') ~ ' ' ~ (flow_run|ui_url)"
    )
    return AutomationCore(
        name=f"{PREFIX}a run failed or crashed",
        description="Sends how the run ended, why, and a link to it.",
        trigger=_each(_BAD_ENDS, _RUNS, _OF_FLOW),
        actions=[
            _call(
                webhook,
                text=text,
                event="flow_run.state.name|lower",
                deployment=deployment,
                flow_run="flow_run.name",
                message="flow_run.state.message or ''",
                link="flow_run|ui_url",
            )
        ],
    )


def _gate(webhook: UUID, outcome: str) -> AutomationCore:
    fields = {name: f"event.payload.{name}|default(none)" for name in _GATE_FIELDS}
    text = (
        f"event.payload.run ~ ' {outcome} (' ~ event.payload.track ~ '): ' ~ "
        "event.payload.because ~ '; validation accuracy ' ~ event.payload.validation_accuracy ~ "
        "', test accuracy ' ~ event.payload.test_accuracy ~ '. ' ~ event.payload.report"
    )
    return AutomationCore(
        name=f"{PREFIX}the gate {outcome} a model",
        description="Sends the figures, the reason, and a link to the report.",
        trigger=_each(
            {f"filterscope.{outcome}"}, {"prefect.resource.id": "filterscope.track.*"}, {}
        ),
        actions=[_call(webhook, text=text, event=f"'{outcome}'", **fields)],
    )


def _silent(webhook: UUID, name: str, deployment: UUID, hours: float) -> AutomationCore:
    """Return the automation that reports a deployment without a success for so many hours.

    The hours count from the last success, or from the first run that was due.
    """
    text = f"{name}: no run has completed for {hours:g} hours"
    due = {f"prefect.flow-run.{state}" for state in ("Late", "Pending", "Running")}
    completed = "prefect.flow-run.Completed"
    return AutomationCore(
        name=f"{PREFIX}{name} has had no success for long",
        description=f"Sends a message {hours:g} hours after the last success.",
        trigger=EventTrigger(
            after={completed, *due},
            expect={completed},
            match=_RUNS,
            match_related={
                "prefect.resource.role": "deployment",
                "prefect.resource.id": f"prefect.deployment.{deployment}",
            },
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(hours=hours),
        ),
        actions=[_call(webhook, text=f"'{text}'", event="'silent'", deployment=f"'{name}'")],
    )


def _each(events: set[str], match: dict[str, str], related: dict[str, str]) -> EventTrigger:
    return EventTrigger(
        expect=events,
        match=match,
        match_related=related,
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _call(webhook: UUID, **fields: str) -> Any:
    """Return the action that sends a JSON object; the values of its fields are templates."""
    body = ", ".join(f'"{name}": {{{{ ({value})|tojson }}}}' for name, value in fields.items())
    return CallWebhook(block_document_id=webhook, payload="{" + body + "}")
