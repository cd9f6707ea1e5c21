"""The steps, each declared once: what it reads, what it makes and what decides its result."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cnn.config.base import Settings, keyed
from cnn.config.run import DataConfig, RecipeChoice, RunConfig
from cnn.data import published, sources
from cnn.pipeline import fingerprints
from cnn.store.keys import Key
from cnn.store.refs import Kind, Ref
from cnn.tables import schemas
from cnn.train import recipes

_DEVICE = ("cnn.train.device",)  # configures TensorFlow for every step that computes with it


@dataclass(frozen=True)
class Resolved:
    """A step's resolved settings: `values` for its key, by dotted name; `value` for its work.

    If they cannot be resolved before the step's `fetch`, `missing` says what is missing.
    """

    values: Mapping[str, Any]
    value: Any = None
    missing: str = ""


class Baseline(Settings):
    """The promoted model that a run's model is compared with.

    run: name of the run that it was promoted from. folder: folder of the model. digest: of its
    weights and its config.
    """

    run: str
    folder: Path
    digest: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One step: its name, the kinds it reads and makes, its settings, its entry module (`code`).

    `fetch` downloads what `resolve` needs; `resolve` resolves the settings without network
    access. Both receive the folder of downloads. `computes`: with TensorFlow. A step that
    `resumes` keeps partial results, so only one process at a time runs it.
    """

    name: str
    makes: Kind
    code: str
    reads: tuple[Kind, ...] = ()
    section: str = ""
    computes: bool = False
    resumes: bool = False
    fetch: Callable[[Any, Path], None] = lambda settings, downloads: None
    resolve: Callable[[Any, Path], Resolved] = lambda settings, downloads: Resolved({})

    def slice(self, config: RunConfig) -> Settings | None:
        """Return this step's section of the settings, or None if it has none."""
        return getattr(config, self.section) if self.section else None

    def key(self, resolved: Resolved, refs: Iterable[Ref]) -> Key:
        """Return the key of this step's artifact for resolved settings and input refs."""
        return Key(
            self.makes,
            {
                "step": self.name,
                "settings": dict(resolved.values),
                "inputs": {ref.kind: ref.digest for ref in refs},
                "code": fingerprints.of(self.code, *(_DEVICE if self.computes else ())),
                "tables": schemas.digests(self.makes),
                "versions": _versions() if self.computes else {},
            },
        )


def _versions() -> dict[str, str]:
    """Return the minor versions of the packages that change what TensorFlow computes."""
    return {name: ".".join(version(name).split(".")[:2]) for name in ("tensorflow", "keras")}


def _dataset(config: DataConfig, downloads: Path) -> Resolved:
    source = sources.identify(config, downloads)
    values = {
        **source.identity(),
        "split_seed": config.split_seed,
        "validation_fraction": config.validation_fraction,
    }
    missing = "" if source.digests else f"{source.name} is not fetched yet"
    return Resolved(_dotted("data", values), (source, config), missing)


def _fetch_dataset(config: DataConfig, downloads: Path) -> None:
    published.fetch_unpinned(config.source, downloads)


def _training(choice: RecipeChoice, downloads: Path) -> Resolved:
    training = recipes.resolve(choice)
    values = {"seed": choice.seed, **keyed(training)}
    return Resolved(_dotted("train", values), (training, choice.seed))


def _comparison(other: Baseline, downloads: Path) -> Resolved:
    model = {"digest": other.digest, "class_names": list(other.class_names)}
    return Resolved({"promoted.model": model}, other)


def _plain(section: str) -> Callable[[Settings, Path], Resolved]:
    return lambda settings, downloads: Resolved(_dotted(section, keyed(settings)), settings)


def _dotted(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in values.items()}


LOAD_DATASET = Step(
    "load_dataset",
    makes="dataset",
    section="data",
    code="cnn.data.sources",
    fetch=_fetch_dataset,
    resolve=_dataset,
)
TRAIN_MODEL = Step(
    "train_model",
    reads=("dataset",),
    makes="model",
    section="train",
    code="cnn.train.trained",
    computes=True,
    resumes=True,
    resolve=_training,
)
EVALUATE_MODEL = Step(
    "evaluate_model",
    reads=("model", "dataset"),
    makes="evaluation",
    section="evaluate",
    code="cnn.evaluate.evaluation",
    computes=True,
    resolve=_plain("evaluate"),
)
EXPORT_FILTERS = Step(
    "export_filters",
    reads=("model", "dataset"),
    makes="filters",
    code="cnn.explain.filters",
    computes=True,
)
MINE_PATCHES = Step(
    "mine_patches",
    reads=("model", "dataset"),
    makes="patches",
    section="explain",
    code="cnn.explain.shards",
    computes=True,
    resumes=True,
    resolve=_plain("explain"),
)
MINE_LAYER = Step(
    "mine_layer",
    reads=("model", "dataset"),
    makes="patches",
    code="cnn.explain.shards",
    computes=True,
    resumes=True,
    resolve=_plain("mine"),
)
WRITE_REPORT = Step(
    "write_report",
    reads=("dataset", "model", "evaluation", "filters", "patches"),
    makes="report",
    section="report",
    code="cnn.report.pages.body",
    resolve=_plain("report"),
)
# The steps of the main flow; MINE_LAYER belongs to the flow `mine`.
STEPS = (LOAD_DATASET, TRAIN_MODEL, EVALUATE_MODEL, EXPORT_FILTERS, MINE_PATCHES, WRITE_REPORT)

# Not part of a plan: which model is promoted is known only once the other steps are done.
COMPARE_MODELS = Step(
    "compare_models",
    reads=("model", "dataset"),
    makes="comparison",
    code="cnn.report.comparison",
    computes=True,
    resolve=_comparison,
)


def with_followers(names: Iterable[str]) -> frozenset[str]:
    """Return the named steps and every step that reads what they make, directly or indirectly."""
    found: set[str] = set(names)
    for step in STEPS:
        makers = {maker.name for maker in STEPS if maker.makes in step.reads}
        if makers & found:
            found.add(step.name)
    return frozenset(found)
