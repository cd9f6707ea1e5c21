"""All settings of a run, declared once for the command line, settings files and Prefect's form.

Validation is strict: command-line text is parsed as JSON, and a value that does not fit is
refused. A default never replaces a bad value.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from annotated_types import BaseMetadata, Ge, Le
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from cnn.config.base import OmitFromKeyAt, Settings
from cnn.config.training import Training
from cnn.config.validation import UserSettings
from cnn.config.values import (
    Bool,
    Described,
    Float,
    FolderPath,
    ImageSize,
    Int,
    read_channels,
    read_filters,
    read_null,
    read_size,
    read_whole,
    read_word,
)
from cnn.errors import ConfigError
from cnn.io import strict_json

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


_FOLDER_ONLY = ("label_column", "transpose", "image_size", "channels")


class DataConfig(Settings):
    """Which images and labels to use, and how to split them."""

    source: Literal["mnist", "fashion-mnist", "kmnist", "folder", "digits", "auto"] = Field(
        "mnist",
        description="mnist, fashion-mnist and kmnist are downloaded; folder reads the IDX or image "
        "files in data.path; digits is scikit-learn's set of 1,797 scans; auto is mnist, or digits "
        "if mnist cannot be reached",
    )
    path: FolderPath | None = Field(
        None,
        description="folder of IDX files, or with one subfolder of image files per class; only "
        "with data.source folder",
    )
    label_column: Annotated[int | None, BeforeValidator(read_whole), OmitFromKeyAt(None)] = Field(
        None,
        ge=0,
        le=65_535,
        description="column that holds the class, counted from 0, if the IDX labels have several",
    )
    transpose: Annotated[bool | None, BeforeValidator(read_word), OmitFromKeyAt(None)] = Field(
        None,
        description="whether to swap the rows and columns of each image (empty: only for IDX files "
        "named emnist-*, which are published transposed)",
    )
    image_size: Annotated[ImageSize | None, BeforeValidator(read_size), OmitFromKeyAt(None)] = (
        Field(
            None, description="size to resize image files to (empty: all must have the same size)"
        )
    )
    channels: Annotated[
        Literal[1, 3] | None, BeforeValidator(read_channels), OmitFromKeyAt(None)
    ] = Field(None, description="1 converts image files to gray, 3 keeps colours (empty: gray)")
    split_seed: Int = Field(
        0, ge=0, le=2**32 - 1, description="seed of the split into training and validation images"
    )
    validation_fraction: Float = Field(
        1 / 12,
        ge=0,
        lt=1,
        description="fraction of the training images to hold out for validation",
    )

    @model_validator(mode="after")
    def _path_belongs_to_folder(self) -> Self:
        if (self.source == "folder") != (self.path is not None):
            raise ValueError("data.path goes with data.source folder, and only with it")
        given = [name for name in _FOLDER_ONLY if getattr(self, name) is not None]
        if given and self.source != "folder":
            raise ValueError(f"data.{given[0]} goes with data.source folder only")
        return self


_Settings = TypeVar("_Settings", bound=UserSettings)
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]


class RecipeChoice(Settings):
    """A named recipe, a seed, and the settings that override the recipe's."""

    recipe: RecipeName = Field("fast", description="name of a complete set of training settings")
    seed: Annotated[Seed | Literal["date"], BeforeValidator(read_whole)] = Field(
        0,
        description="seed of weights, order, dropout and augmentation; date uses the UTC date for "
        "which the run is scheduled, such as 20260301",
    )

    def overrides(self) -> dict[str, Any]:
        """Return the overrides of the recipe that are set, by name."""
        return self.model_dump(exclude_none=True, exclude={"recipe", "seed"})


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    """Return the type and definition of an override: the same field, where null is the default."""
    readers = [item for item in field.metadata if isinstance(item, BeforeValidator)]
    limits = [item for item in field.metadata if isinstance(item, BaseMetadata)]
    annotation: Any = field.annotation
    for limit in limits:
        annotation = Annotated[annotation, limit]
    reader = readers[0] if readers else BeforeValidator(read_null)
    description = f"{field.description} (empty: the recipe's value)"
    optional: Any = Annotated[annotation | None, reader]
    return optional, Field(None, description=description)


if TYPE_CHECKING:

    class TrainConfig(RecipeChoice):
        """A recipe and its overrides: every field of `Training`, null for the recipe's value."""
else:
    TrainConfig = create_model(
        "TrainConfig",
        __base__=RecipeChoice,
        __module__=__name__,
        __doc__="A recipe, a seed, and the settings that override the recipe's.",
        **{name: _optional(field) for name, field in Training.model_fields.items()},
    )


class EvaluateConfig(Settings):
    """How to summarise the evaluation."""

    calibration_bins: Int = Field(
        15,
        ge=1,
        le=1000,
        description="number of equal-width bins of the expected calibration error",
    )


Filter = Annotated[int, Ge(0), Le(65_535)]


class ExplainConfig(Settings):
    """Which patches to mine."""

    patches_per_filter: Int = Field(12, ge=1, le=10_000, description="patches kept for each filter")
    split: SplitName = Field("test", description="images to search for patches")
    one_per_image: Annotated[Bool, OmitFromKeyAt(False)] = Field(
        False, description="whether each image gives a filter only its strongest patch"
    )
    suppression_radius: Annotated[Int, OmitFromKeyAt(0)] = Field(
        0,
        ge=0,
        le=10_000,
        description="rows and columns of the feature map around a patch in which weaker patches of "
        "the same image are dropped; 0 drops none",
    )


class MiningConfig(ExplainConfig):
    """Which patches of one layer to mine."""

    layer: Annotated[str, Described("the name of a layer, such as conv2")] = Field(
        min_length=1, description="convolution or pooling layer of the model"
    )
    filters: Annotated[
        tuple[Filter, ...] | None,
        BeforeValidator(read_filters),
        Described("numbers in brackets, such as [0, 7]"),
    ] = Field(None, min_length=1, description="numbers of the filters to search (empty: all)")
    lowest: Bool = Field(
        False,
        description="whether to mine the lowest activations, taken before the layer's ReLU",
    )


class ReportConfig(Settings):
    """What the report shows."""

    mistakes: Int = Field(24, ge=1, le=200, description="number of the worst mistakes to show")


class GateConfig(Settings):
    """Which models are promoted; all limits apply to the validation images."""

    track: Annotated[
        str | None,
        BeforeValidator(read_null),
        Described("a name of at most 64 lower-case letters, digits, dots, dashes, underscores"),
    ] = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="models on the same track compete, and the promoted one is in promoted/TRACK; "
        "lower-case letters, digits, dots, dashes, underscores (empty: the data's name)",
    )
    min_accuracy: Float = Field(0.9, ge=0, le=1, description="minimum accuracy, as a fraction")
    min_recall: Float = Field(
        0.7, ge=0, le=1, description="minimum recall of every class, as a fraction"
    )
    max_accuracy_drop: Float = Field(
        0.005,
        ge=0,
        le=1,
        description="accepted loss of accuracy against the promoted model, as a fraction: the "
        "lower end of the paired 95 % interval of the difference must be above minus this",
    )
    max_recall_drop: Float = Field(
        0.05,
        ge=0,
        le=1,
        description="accepted loss of recall of any class against the promoted model, as a "
        "fraction",
    )
    max_megabytes: Annotated[float | None, BeforeValidator(read_word)] = Field(
        None, gt=0, le=1e6, description="maximum size of model.keras, in MB (empty: no limit)"
    )
    max_milliseconds: Annotated[float | None, BeforeValidator(read_word)] = Field(
        None,
        gt=0,
        le=1e6,
        description="maximum median time to predict one image, in ms (empty: no limit)",
    )
    fail: Bool = Field(False, description="whether a rejection fails the run, with exit code 4")


class RuntimeConfig(Settings):
    """Where and how to compute; none of these settings enters a key."""

    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto uses a GPU if TensorFlow finds one"
    )
    threads: Annotated[int | None, BeforeValidator(read_whole)] = Field(
        None, ge=1, le=1024, description="threads per operation (empty: TensorFlow's choice)"
    )
    task_runner: Literal["none", "processes", "dask"] = Field(
        "none",
        description="what mines patches when there are many images: none is the run's own process, "
        "processes is several processes on this machine, dask is a Dask cluster",
    )
    workers: Annotated[int | None, BeforeValidator(read_whole)] = Field(
        None,
        ge=1,
        le=1024,
        description="number of processes, or of Dask workers on this machine (empty: one per core)",
    )
    dask_address: Annotated[
        str | None, BeforeValidator(read_null), Described("an address like tcp://host:8786")
    ] = Field(
        None,
        pattern=r"^[a-z]+://\S+$",
        description="scheduler of a Dask cluster that has the store under the same path, such as "
        "tcp://host:8786 (empty: a temporary cluster on this machine)",
    )
    checkpoint_seconds: Float = Field(
        10.0,
        gt=0,
        le=86_400,
        description="seconds between two checkpoints of the training, or more if they would take "
        "over 2 % of its time",
    )

    @model_validator(mode="after")
    def _workers_belong_to_a_task_runner(self) -> Self:
        if self.dask_address is not None and self.task_runner != "dask":
            raise ValueError("runtime.dask_address goes with runtime.task_runner dask only")
        if self.workers is not None and (self.task_runner == "none" or self.dask_address):
            raise ValueError(
                "runtime.workers goes with runtime.task_runner processes, or with dask on this "
                "machine, only"
            )
        return self


class RunConfig(UserSettings):
    """All settings of one run."""

    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    explain: ExplainConfig = ExplainConfig()
    report: ReportConfig = ReportConfig()
    gate: GateConfig = GateConfig()
    runtime: RuntimeConfig = RuntimeConfig()


class MineConfig(MiningConfig, UserSettings):
    """A search for patches of one layer of a run's model, in any images."""

    run: Annotated[str, Described("the name of a run, its beginning or end, or latest")] = Field(
        "latest", min_length=1, description="run whose model to explain"
    )
    data: DataConfig | None = Field(
        None, description="images to search (empty: the run's own data set)"
    )
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def search(self) -> MiningConfig:
        """The mining settings alone."""
        names = MiningConfig.model_fields
        return MiningConfig(**{name: getattr(self, name) for name in names})

    @property
    def of_run(self) -> "RunConfig":
        """The settings that a search shares with a run: the data, and how to compute."""
        return RunConfig(data=self.data or DataConfig(), runtime=self.runtime)

    @field_validator("data", mode="before")
    @classmethod
    def _path_alone_is_a_folder(cls, data: Any) -> Any:
        is_path_alone = isinstance(data, dict) and data.get("path") and not data.get("source")
        return {**data, "source": "folder"} if is_path_alone else data


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Return a run's settings from nested `values`; raises like `validated`."""
    return validated(values, RunConfig)


def validated(values: Mapping[str, Any], model: type[_Settings]) -> _Settings:
    """Return the settings of type `model` from nested `values`.

    Raises ConfigError, which names every unknown or refused field, the value received and
    the values allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"]) from None


def dated(config: RunConfig, scheduled: datetime) -> RunConfig:
    """Return the settings with the seed `date` replaced by the UTC date of `scheduled`."""
    if config.train.seed != "date":
        return config
    seed = int(f"{scheduled.astimezone(UTC):%Y%m%d}")
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def read_file(path: Path) -> dict[str, Any]:
    """Return the nested values in a JSON settings file; raises ConfigError."""
    try:
        with path.open("rb") as stream:
            values = strict_json.load(stream)
    except (OSError, ValueError) as error:
        raise ConfigError(f"settings file {path}: {error}; a JSON object is expected") from None
    if not isinstance(values, dict):
        raise ConfigError(f"settings file {path}: a JSON object is expected at the top")
    return values
