"""Error messages for refused settings: the setting, the value received, the values allowed."""

import difflib
from collections.abc import Collection, Iterator
from typing import Any, Self, get_args

from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from cnn.config.base import Settings
from cnn.config.values import allowed, shown


class UserSettings(Settings):
    """Base of the settings that a user gives as a whole: those of a run or of a search."""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_words(cls, values: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        """Replace pydantic's messages by those of the command, in Prefect too."""
        try:
            return validated(values)
        except ValidationError as error:
            raise PydanticCustomError(
                "refused_settings", "{refusals}", {"refusals": describe(error, cls)}
            ) from None


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted name and the definition of every setting in a model, nested ones too."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section:
            yield from fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a (possibly optional) section; None for a value."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line per refused field: its name, the value received, the values allowed."""
    known = dict(fields(model))
    lines = (_describe_one(dict(item), known, model) for item in error.errors())
    return "\n".join(dict.fromkeys(lines))


def _setting_at(location: tuple[str | int, ...], known: Collection[str]) -> str:
    """Return the dotted name of the setting at pydantic's `loc`, which may lead into its type."""
    parts = [part for part in location if isinstance(part, str)]
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in known), names[0] if names else "")


def _describe_one(item: dict[str, Any], known: dict[str, FieldInfo], model: type[BaseModel]) -> str:
    name = _setting_at(item["loc"], known)
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, [*known, *model.model_fields], n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{name}: there is no such setting{hint}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if item["type"] == "missing" and item["loc"] == tuple(name.split(".")):
        return f"{name}: is missing; expected {allowed(known[name])}"
    expected = allowed(known[name]) if name in known else "an object of settings"
    return f"{name or 'settings'}: {shown(item['input'])} is refused; expected {expected}"
