"""Registers the automations with the server, and stores the webhook's address in a secret block."""

import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from cnn.errors import ConfigError
from deployments import automations
from deployments.settings import Settings

BLOCK = "filterscope-messages"
_SETTING = "FILTERSCOPE_WEBHOOK_URL"
_OURS = {"name", "description", "trigger", "actions", "enabled"}


def apply(settings: Settings, tell: Callable[[str], object]) -> None:
    """Bring the server's automations in line with their declarations; leave equal ones alone.

    Without a webhook address, automations that send messages are left as they are.
    """
    url = settings[_SETTING]
    with get_client(sync_client=True) as client:
        declared = [automations.stuck()]
        if url:
            _check(url, tell)
            declared += automations.messages(_save_block(client, url), _scheduled(client))
        else:
            tell(f"no messages are sent: {_SETTING} is not set")
        _synchronize(client, declared, tell, remove=bool(url))


def _check(url: str, tell: Callable[[str], object]) -> None:
    """Raise ConfigError for an invalid address; warn if nothing answers there.

    The address is secret: no message contains it.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ConfigError(f"{_SETTING} is refused; expected an address like https://host/path")
    try:
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except OSError as error:
        tell(
            f"{_SETTING}: nothing answers there ({error.strerror or error}); messages are lost "
            "until something does, but runs continue"
        )


def _save_block(client: SyncPrefectClient, url: str) -> UUID:
    """Store the address in the secret block; return the block's id."""
    try:
        block = client.read_block_document_by_name(BLOCK, "webhook", include_secrets=True)
    except ObjectNotFound:
        block = None
    if block is None or block.data.get("url") != url:
        headers = {"Content-Type": "application/json"}
        Webhook(method="POST", url=SecretStr(url), headers=headers).save(BLOCK, overwrite=True)
        block = client.read_block_document_by_name(BLOCK, "webhook", include_secrets=False)
    return block.id


def _scheduled(client: SyncPrefectClient) -> dict[str, UUID]:
    """Return the ids of the deployments with an active schedule, by name."""
    names = DeploymentFilter(name=DeploymentFilterName(any_=list(automations.HOURS)))
    found = client.read_deployments(deployment_filter=names)
    return {item.name: item.id for item in found if any(one.active for one in item.schedules)}


def _synchronize(
    client: SyncPrefectClient,
    declared: Iterable[AutomationCore],
    tell: Callable[[str], object],
    remove: bool,
) -> None:
    """Create, update and, if `remove`, delete automations; one paused in the UI stays paused."""
    found = {a.name: a for a in client.read_automations() if a.name.startswith(automations.PREFIX)}
    for automation in declared:
        old = found.pop(automation.name, None)
        if old is None:
            client.create_automation(automation)
            tell(f"automation created: {automation.name}")
        elif not _same(old, automation):
            client.update_automation(old.id, automation.model_copy(update={"enabled": old.enabled}))
            tell(f"automation changed: {automation.name}")
    for old in found.values() if remove else ():
        client.delete_automation(old.id)
        tell(f"automation removed: {old.name}")


def _same(old: Automation, new: AutomationCore) -> bool:
    parts = _OURS - {"enabled"}
    return _plain(old, parts) == _plain(new, parts)


def _plain(automation: AutomationCore, parts: set[str]) -> dict[str, object]:
    core = AutomationCore.model_validate(automation.model_dump(include=parts))
    values = core.model_dump(include=parts)
    values["trigger"].pop("id", None)
    return values
