"""The strict, frozen base model of all settings, and the rule for settings added later."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class OmitFromKeyAt:
    """Mark a setting that was added later, with the value that reproduces the earlier behaviour.

    At that value, which must never change, the setting is left out of every key, so that the
    store still finds artifacts made before the setting existed:
    `Annotated[Int, OmitFromKeyAt(0)]`.
    """

    value: Any


class Settings(BaseModel):
    """Base of all settings: frozen, strict, no unknown names, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def keyed(settings: Settings) -> dict[str, Any]:
    """Return the fields that enter a key, by name: all except those at their `OmitFromKeyAt`."""
    definitions = type(settings).model_fields
    return {
        name: value
        for name, value in settings.model_dump(mode="json").items()
        if OmitFromKeyAt(getattr(settings, name)) not in definitions[name].metadata
    }
