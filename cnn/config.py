"""Every setting, declared once for the command line, settings files and Prefect's form.

Validation is strict: a word is read as the JSON value it spells, and a value that
does not fit is refused. No default ever replaces a bad value.
"""

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_args, get_origin

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from cnn import documents
from cnn.errors import ConfigError

RecipeName = Literal["notebook", "spec", "fast", "best"]
SplitName = Literal["train", "validation", "test"]
StepName = Literal[
    "load_dataset",
    "train_model",
    "evaluate_model",
    "export_filters",
    "mine_patches",
    "write_report",
]


def _read_word(value: Any) -> Any:
    """Return the JSON value that a command-line word spells, or the word itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=documents.refuse_constant)
    except (ValueError, RecursionError):
        return value


def _read_whole(value: Any) -> Any:
    value = _read_word(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read_path(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    if _NO_TEXT.search(value):  # run.json could not hold it
        raise ValueError(f"data.path: {shown(value)} is refused; a path in UTF-8 is expected")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"data.path: {shown(value)} is refused; there is no such user") from None


def _read_channels(value: Any) -> Any:
    """Return a whole number; true, which Python takes for 1, is none."""
    value = _read_whole(value)
    return repr(value) if isinstance(value, bool) else value


def _read_size(value: Any) -> Any:
    """Return [height, width] as a tuple; one number stands for both."""
    value = _read_whole(value)
    if isinstance(value, list):
        return tuple(_read_whole(side) for side in value)
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Whole = Annotated[int, BeforeValidator(_read_whole)]
Number = Annotated[float, BeforeValidator(_read_word)]
Flag = Annotated[bool, BeforeValidator(_read_word)]
FolderPath = Annotated[Path, BeforeValidator(_read_path)]
Side = Annotated[int, Ge(1), Le(1024)]
ImageSize = tuple[Side, Side]


_NO_TEXT = re.compile("[\\0\\ud800-\\udfff]")
_LONGEST_SHOWN = 80  # characters of a refused value


@dataclass(frozen=True)
class Neutral:
    """Marks a setting that came later, with the value at which nothing differs from before.

    At that value, which never changes, the setting stays out of every key, so that
    artifacts that were made before it are still found: `Annotated[Whole, Neutral(0)]`.
    """

    value: Any


class Settings(BaseModel):
    """Base of all settings: frozen, strict, no unknown names, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_OF_FOLDERS = ("label_column", "transpose", "image_size", "channels")


class DataConfig(Settings):
    """Which images and labels to use, and how to split them."""

    source: Literal["mnist", "fashion-mnist", "kmnist", "folder", "digits", "auto"] = Field(
        "mnist",
        description="mnist, fashion-mnist and kmnist are fetched; folder reads the IDX files or "
        "pictures in data.path; digits are the 1,797 scans that scikit-learn ships; auto is mnist, "
        "or digits where it cannot be reached",
    )
    path: FolderPath | None = Field(
        None,
        description="folder of IDX files, or of one folder of pictures per class, for data.source "
        "folder only",
    )
    label_column: Annotated[int | None, BeforeValidator(_read_whole), Neutral(None)] = Field(
        None,
        ge=0,
        le=65_535,
        description="column that holds the class, counted from 0, where IDX labels have several",
    )
    transpose: Annotated[bool | None, BeforeValidator(_read_word), Neutral(None)] = Field(
        None,
        description="whether rows and columns of each image are exchanged (empty: for IDX files "
        "named emnist-*, which are published so)",
    )
    image_size: Annotated[ImageSize | None, BeforeValidator(_read_size), Neutral(None)] = Field(
        None, description="size to which pictures are resized (empty: they must have one size)"
    )
    channels: Annotated[Literal[1, 3] | None, BeforeValidator(_read_channels), Neutral(None)] = (
        Field(None, description="1 makes pictures gray, 3 keeps their colours (empty: gray)")
    )
    split_seed: Whole = Field(
        0, ge=0, le=2**32 - 1, description="seed of the split into training and validation images"
    )
    validation_fraction: Number = Field(
        1 / 12,
        ge=0,
        lt=1,
        description="share of the training images that is held out for validation",
    )

    @model_validator(mode="after")
    def _path_belongs_to_folder(self) -> Self:
        if (self.source == "folder") != (self.path is not None):
            raise ValueError("data.path goes with data.source folder, and only with it")
        given = [name for name in _OF_FOLDERS if getattr(self, name) is not None]
        if given and self.source != "folder":
            raise ValueError(f"data.{given[0]} goes with data.source folder only")
        return self


class Training(Settings):
    """A complete training: architecture, optimisation, regularisation and logging."""

    steps: Whole = Field(ge=1, le=10_000_000, description="number of optimizer steps")
    batch_size: Whole = Field(ge=1, le=65_536, description="images per step")
    learning_rate: Number = Field(gt=0, le=1e9, description="Adam's peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        description="how the learning rate falls after the warm-up; linear and cosine end at 0"
    )
    warmup_fraction: Number = Field(
        ge=0, lt=1, description="share of the steps over which the rate rises linearly from 0"
    )
    beta1: Number = Field(0.9, ge=0, lt=1, description="Adam's decay of the first moment")
    beta2: Number = Field(ge=0, lt=1, description="Adam's decay of the second moment")
    epsilon: Number = Field(1e-8, gt=0, le=1, description="Adam's epsilon")
    dropout: Number = Field(0.5, ge=0, lt=1, description="share of dense1's units dropped")
    augment_shift: Number = Field(
        0.0, ge=0, le=64, description="largest random shift of a training image, in pixels"
    )
    augment_rotation: Number = Field(
        0.0, ge=0, le=180, description="largest random rotation of a training image, in degrees"
    )
    augment_scale: Number = Field(
        0.0, ge=0, lt=1, description="largest random change of a training image's size, as a share"
    )
    conv1_filters: Whole = Field(25, ge=1, le=4096, description="filters of conv1")
    conv1_kernel: Whole = Field(12, ge=1, le=256, description="kernel side of conv1, in pixels")
    conv1_stride: Whole = Field(2, ge=1, le=256, description="stride of conv1, in pixels")
    conv2_filters: Whole = Field(64, ge=1, le=4096, description="filters of conv2")
    conv2_kernel: Whole = Field(5, ge=1, le=256, description="kernel side of conv2, in units")
    dense1_units: Whole = Field(1024, ge=1, le=65_536, description="units of dense1")
    conv_bias: Flag = Field(description="whether the convolutions add a bias")
    logits_activation: Literal["none", "relu"] = Field(
        description="activation on the logits; relu is the notebook's slip"
    )
    weight_sd: Number = Field(
        0.05, gt=0, le=10, description="sd of the initial weights, a normal truncated at 2 sd"
    )
    initial_bias: Number = Field(0.1, ge=-10, le=10, description="initial value of all biases")
    log_every: Whole = Field(
        100, ge=1, le=1_000_000, description="steps between two log points of the history"
    )
    log_split: Literal["validation", "test"] = Field(
        description="images whose accuracy is logged while training"
    )


class RecipeChoice(Settings):
    """A named recipe, a seed, and what to change in the recipe."""

    recipe: RecipeName = Field("fast", description="named complete training")
    seed: Whole = Field(
        0, ge=0, le=2**32 - 1, description="seed of weights, order, dropout and augmentation"
    )

    def overrides(self) -> dict[str, Any]:
        """Return the recipe's fields that are set here, by name."""
        return self.model_dump(exclude_none=True, exclude={"recipe", "seed"})


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    """Return a field's type and definition, with null meaning the recipe's value."""
    readers = [item for item in field.metadata if isinstance(item, BeforeValidator)]
    limits = [item for item in field.metadata if isinstance(item, BaseMetadata)]
    annotation: Any = field.annotation
    for limit in limits:
        annotation = Annotated[annotation, limit]
    reader = readers[0] if readers else BeforeValidator(_read_null)
    description = f"{field.description} (empty: the recipe's value)"
    optional: Any = Annotated[annotation | None, reader]
    return optional, Field(None, description=description)


def _read_null(value: Any) -> Any:
    return None if value == "null" else value


if TYPE_CHECKING:

    class TrainConfig(RecipeChoice):
        """A recipe and its overrides: every field of `Training`, null where the recipe rules."""
else:
    TrainConfig = create_model(
        "TrainConfig",
        __base__=RecipeChoice,
        __module__=__name__,
        __doc__="A recipe, a seed, and what to change in the recipe.",
        **{name: _optional(field) for name, field in Training.model_fields.items()},
    )


class EvaluateConfig(Settings):
    """How the evaluation is summarised."""

    calibration_bins: Whole = Field(
        15, ge=1, le=1000, description="equal-width bins of the expected calibration error"
    )


class ExplainConfig(Settings):
    """Which patches are mined."""

    patches_per_filter: Whole = Field(
        12, ge=1, le=10_000, description="patches kept for each filter"
    )
    split: SplitName = Field("test", description="images that are searched for patches")


class ReportConfig(Settings):
    """What the report shows."""

    mistakes: Whole = Field(
        24, ge=1, le=200, description="number of the worst mistakes that are shown"
    )


class RuntimeConfig(Settings):
    """Where and how to compute; nothing here enters a key."""

    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto takes a GPU where TensorFlow finds one"
    )
    threads: Annotated[int | None, BeforeValidator(_read_whole)] = Field(
        None, ge=1, le=1024, description="threads per operation (empty: TensorFlow's choice)"
    )

    checkpoint_seconds: Number = Field(
        10.0,
        gt=0,
        le=86_400,
        description="seconds between two checkpoints of the training, or more where they would "
        "take over 2 % of its time",
    )


class RunConfig(Settings):
    """All settings of one run."""

    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    explain: ExplainConfig = ExplainConfig()
    report: ReportConfig = ReportConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_words(cls, values: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        """Say whatever is refused as the command says it, in Prefect's messages too."""
        try:
            return validated(values)
        except ValidationError as error:
            raise PydanticCustomError(
                "refused_settings", "{refusals}", {"refusals": describe(error)}
            ) from None


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Return the settings that nested `values` describe.

    Raises ConfigError naming every field that is unknown or refused, the value
    received and the values allowed.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"]) from None


def keyed(settings: Settings) -> dict[str, Any]:
    """Return the fields that enter a key, by name: all but those at their neutral value."""
    definitions = type(settings).model_fields
    return {
        name: value
        for name, value in settings.model_dump(mode="json").items()
        if Neutral(getattr(settings, name)) not in definitions[name].metadata
    }


def read_file(path: Path) -> dict[str, Any]:
    """Return the nested values of a JSON settings file; raises ConfigError."""
    try:
        with path.open("rb") as stream:
            values = documents.load(stream)
    except (OSError, ValueError) as error:
        raise ConfigError(f"settings file {path}: {error}; a JSON object is expected") from None
    if not isinstance(values, dict):
        raise ConfigError(f"settings file {path}: a JSON object is expected at the top")
    return values


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every setting below a model as its dotted name and definition."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from fields(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def describe(error: ValidationError) -> str:
    """Return one line per refused field: its name, the value received, the values allowed."""
    return "\n".join(dict.fromkeys(_describe_one(dict(item)) for item in error.errors()))


def _describe_one(item: dict[str, Any]) -> str:
    name = ".".join(part for part in item["loc"] if isinstance(part, str))
    known = dict(fields(RunConfig))
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, [*known, *RunConfig.model_fields], n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{name}: there is no such setting{hint}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    wanted = allowed(known[name]) if name in known else "an object of settings"
    return f"{name or 'settings'}: {shown(item['input'])} is refused; expected {wanted}"


def shown(value: Any) -> str:
    """Return a value as its user wrote it: JSON, but a text as Python shows it; cut if long."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def allowed(field: FieldInfo) -> str:
    """Return the values that a setting takes, in words."""
    choices, optional = _unwrap(field.annotation)
    if isinstance(choices, tuple):
        words = "one of " + ", ".join(str(choice) for choice in choices)
    else:
        limits = dict.fromkeys(_limits([*field.metadata, *_nested_limits(field.annotation)]))
        name = _NAMES.get(get_origin(choices) or choices, "a value")
        words = " ".join([name, " and ".join(limits)]).strip()
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
        return _unwrap(inner)[0], True
    return annotation, False


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
