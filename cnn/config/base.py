"""What all groups of settings share: they are frozen and strict, and some fields came later."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class OmitFromKeyAt:
    """Marks a setting that came later, with the value at which nothing differs from before.

    At that value, which never changes, the setting stays out of every key, so that
    artifacts that were made before it are still found: `Annotated[Whole, Neutral(0)]`.
    """

    value: Any


class Settings(BaseModel):
    """Base of all settings: frozen, strict, no unknown names, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def keyed(settings: Settings) -> dict[str, Any]:
    """Return the fields that enter a key, by name: all but those at their neutral value."""
    definitions = type(settings).model_fields
    return {
        name: value
        for name, value in settings.model_dump(mode="json").items()
        if OmitFromKeyAt(getattr(settings, name)) not in definitions[name].metadata
    }
