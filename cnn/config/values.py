"""Parsing of setting values, and the description of their types and limits in messages."""

import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from cnn.io import strict_json

_NO_TEXT = re.compile("[\\0\\ud800-\\udfff]")
_LONGEST_SHOWN = 80  # characters of a refused value


def read_word(value: Any) -> Any:
    """Return a command-line word parsed as JSON, or the word itself if it is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=strict_json.refuse_constant)
    except (ValueError, RecursionError):
        return value


def read_whole(value: Any) -> Any:
    """Return a value parsed like `read_word`, with 3.0 converted to 3."""
    value = read_word(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_path(value: Any) -> Any:
    """Return a word as an absolute path, with ~ expanded; raises ValueError."""
    if not isinstance(value, str) or not value:
        return value
    if _NO_TEXT.search(value):  # run.json cannot hold it
        raise ValueError(f"data.path: {shown(value)} is refused; expected a path in UTF-8")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"data.path: {shown(value)} is refused; there is no such user") from None


def read_channels(value: Any) -> Any:
    """Return a value parsed like `read_whole`, with true as text: Python takes True for 1."""
    value = read_whole(value)
    return json.dumps(value) if isinstance(value, bool) else value


def read_size(value: Any) -> Any:
    """Return [height, width] as a tuple; a single number gives both sides."""
    value = read_whole(value)
    if isinstance(value, list):
        return tuple(read_whole(side) for side in value)
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def read_filters(value: Any) -> Any:
    """Return a list of numbers, or a single one, as a sorted tuple without duplicates."""
    value = read_whole(value)
    numbers = value if isinstance(value, list | tuple) else [value]
    numbers = [read_whole(number) for number in numbers]
    if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
        return value
    return tuple(sorted(set(numbers)))


def read_null(value: Any) -> Any:
    """Return None for the word null, any other value as it is."""
    return None if value == "null" else value


Int = Annotated[int, BeforeValidator(read_whole)]
Float = Annotated[float, BeforeValidator(read_word)]
Bool = Annotated[bool, BeforeValidator(read_word)]
FolderPath = Annotated[Path, BeforeValidator(read_path)]
ImageSide = Annotated[int, Ge(1), Le(1024)]
ImageSize = tuple[ImageSide, ImageSide]


def shown(value: Any) -> str:
    """Return a value as the user wrote it: text in quotes, the rest as JSON; cut if long."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


@dataclass(frozen=True)
class Described:
    """Mark a setting with the text that describes its values in help and messages."""

    words: str


def allowed(field: FieldInfo) -> str:
    """Return a description of the values that a setting accepts."""
    choices, optional = _unwrap(field.annotation)
    descriptions = [item.words for item in field.metadata if isinstance(item, Described)]
    if descriptions:
        words = descriptions[0]
    elif isinstance(choices, tuple):
        words = "one of " + ", ".join(str(choice) for choice in choices)
    else:
        limits = dict.fromkeys(_limits([*field.metadata, *_nested_limits(field.annotation)]))
        name = _NAMES.get(get_origin(choices) or choices, "a value")
        words = " ".join([name, " and ".join(limits)]).strip()
        words += "".join(f", or {word}" for word in _literals_in_union(field.annotation))
    return f"{words} (or null)" if optional else words


_NAMES: dict[Any, str] = {int: "a whole number", float: "a finite number", bool: "true or false"}
_NAMES[Path] = "the path of a folder"
_NAMES[tuple] = "one side or [height, width] in pixels, each"


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """Return a field's plain type, or its choices as a tuple, and whether null is legal."""
    if get_origin(annotation) is Annotated:
        return _unwrap(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return get_args(annotation), False
    if get_origin(annotation) in (Union, types.UnionType):
        inner = next(part for part in get_args(annotation) if part is not type(None))
        return _unwrap(inner)[0], type(None) in get_args(annotation)
    return annotation, False


def _literals_in_union(annotation: Any) -> Iterator[str]:
    """Yield the words that a field accepts besides values of another type, such as `date`."""
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from get_args(part) if get_origin(part) is Literal else ()


def _nested_limits(annotation: Any) -> list[Any]:
    """Return the limits declared inside a field's type, as in an optional one."""
    limits = list(get_args(annotation)[1:]) if get_origin(annotation) is Annotated else []
    for part in get_args(annotation):
        if get_origin(part) is not None:
            limits += _nested_limits(part)
    return limits


def _limits(metadata: list[Any]) -> Iterator[str]:
    for item in metadata:
        match item:
            case Ge(ge=bound):
                yield f">= {bound:,}"
            case Gt(gt=bound):
                yield f"> {bound}"
            case Le(le=bound):
                yield f"<= {bound:,}"
            case Lt(lt=bound):
                yield f"< {bound}"
