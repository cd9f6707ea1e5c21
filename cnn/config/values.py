"""How settings are read from words, and how their values and limits are said in words."""

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
    """Return the JSON value that a command-line word spells, or the word itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=strict_json.refuse_constant)
    except (ValueError, RecursionError):
        return value


def read_whole(value: Any) -> Any:
    """Return the whole number that a word or a number like 3.0 is, or the value itself."""
    value = read_word(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_path(value: Any) -> Any:
    """Return the absolute path that a word names; raises ValueError."""
    if not isinstance(value, str) or not value:
        return value
    if _NO_TEXT.search(value):  # run.json could not hold it
        raise ValueError(f"data.path: {shown(value)} is refused; a path in UTF-8 is expected")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"data.path: {shown(value)} is refused; there is no such user") from None


def read_channels(value: Any) -> Any:
    """Return a whole number; true, which Python takes for 1, is none."""
    value = read_whole(value)
    return repr(value) if isinstance(value, bool) else value


def read_size(value: Any) -> Any:
    """Return [height, width] as a tuple; one number stands for both."""
    value = read_whole(value)
    if isinstance(value, list):
        return tuple(read_whole(side) for side in value)
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def read_filters(value: Any) -> Any:
    """Return the numbers in brackets as a tuple, each once, ascending; one stands for itself."""
    value = read_whole(value)
    numbers = value if isinstance(value, list | tuple) else [value]
    numbers = [read_whole(number) for number in numbers]
    if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
        return value
    return tuple(sorted(set(numbers)))


def read_null(value: Any) -> Any:
    """Return nothing for the word null."""
    return None if value == "null" else value


Int = Annotated[int, BeforeValidator(read_whole)]
Float = Annotated[float, BeforeValidator(read_word)]
Bool = Annotated[bool, BeforeValidator(read_word)]
FolderPath = Annotated[Path, BeforeValidator(read_path)]
ImageSide = Annotated[int, Ge(1), Le(1024)]
ImageSize = tuple[ImageSide, ImageSide]


def shown(value: Any) -> str:
    """Return a value as its user wrote it: JSON, but a text as Python shows it; cut if long."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


@dataclass(frozen=True)
class Described:
    """Marks a setting whose values are texts with words for what they look like."""

    words: str


def allowed(field: FieldInfo) -> str:
    """Return the values that a setting takes, in words."""
    choices, optional = _unwrap(field.annotation)
    spelled = [item.words for item in field.metadata if isinstance(item, Described)]
    if spelled:
        words = spelled[0]
    elif isinstance(choices, tuple):
        words = "one of " + ", ".join(str(choice) for choice in choices)
    else:
        limits = dict.fromkeys(_limits([*field.metadata, *_nested_limits(field.annotation)]))
        name = _NAMES.get(get_origin(choices) or choices, "a value")
        words = " ".join([name, " and ".join(limits)]).strip()
        words += "".join(f", or {word}" for word in _words_beside(field.annotation))
    return f"{words} (or null)" if optional else words


_NAMES: dict[Any, str] = {int: "a whole number", float: "a finite number", bool: "true or false"}
_NAMES[Path] = "the path of a folder"
_NAMES[tuple] = "one side or [height, width] in pixels, each"


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """Return a field's plain type (or its choices) and whether null is legal."""
    if get_origin(annotation) is Annotated:
        return _unwrap(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return get_args(annotation), False
    if get_origin(annotation) in (Union, types.UnionType):
        inner = next(part for part in get_args(annotation) if part is not type(None))
        return _unwrap(inner)[0], type(None) in get_args(annotation)
    return annotation, False


def _words_beside(annotation: Any) -> Iterator[str]:
    """Yield the words that a field takes beside values of another type."""
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from get_args(part) if get_origin(part) is Literal else ()


def _nested_limits(annotation: Any) -> list[Any]:
    """Return the limits that stand inside an optional field's type."""
    found = list(get_args(annotation)[1:]) if get_origin(annotation) is Annotated else []
    for part in get_args(annotation):
        if get_origin(part) is not None:
            found += _nested_limits(part)
    return found


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
