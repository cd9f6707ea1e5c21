"""Collects the settings from a command line as strings, with one option for each setting.

Nothing is converted here: cnn.config.run validates the strings like values of files and forms.
"""

from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, create_model
from pydantic_core import PydanticUndefined

from cnn.config import run, validation, values


def _option(name: str, field: Any, group: str) -> Any:
    default = (
        "" if field.default in (None, PydanticUndefined) else f"; default {_word(field.default)}"
    )
    text = f"{field.description}: {values.allowed(field)}{default}"
    parameter = Parameter(help=text, show_default=False, group=f"Settings: {group}")
    return Annotated[str | None, parameter]


def _word(value: object) -> str:
    """Return a default as a user would type it: true, not True."""
    return value if isinstance(value, str) else values.shown(value)


def _model(settings: type[BaseModel], group: str) -> type[BaseModel]:
    """Return a model like `settings` in which every setting is a string or None."""
    fields: dict[str, Any] = {}
    for name, field in settings.model_fields.items():
        inner = validation.section_of(field)
        if inner:
            section = _model(inner, name)
            fields[name] = (section, section())
        else:
            fields[name] = (_option(name, field, group), None)
    return create_model(f"{settings.__name__}Words", **fields)


RunWords: Any = _model(run.RunConfig, "")
MineWords: Any = _model(run.MineConfig, "the search")


def merged(file: dict[str, Any], words: BaseModel) -> dict[str, Any]:
    """Return the nested values of a settings file, overridden by the options given."""
    result = dict(file)
    for section, given in words.model_dump(exclude_none=True).items():
        values_of_file = result.get(section) or {}
        if not isinstance(given, dict):
            result[section] = given
        elif given and isinstance(values_of_file, dict):  # validation refuses anything else
            result[section] = {**values_of_file, **given}
    return result
