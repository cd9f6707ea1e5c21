"""A plan says which steps are cached, which will run, and why."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

import pytest

from cnn.config import run as config
from cnn.config.run import RunConfig, StepName
from cnn.errors import DataError
from cnn.pipeline import fingerprints, planning, steps
from cnn.pipeline.steps import LOAD_DATASET, STEPS, with_followers
from cnn.store.keys import Key
from cnn.store.manifests import Headline
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store
from tests import commands

NAMES = [step.name for step in STEPS]


def settings(**sections: Any) -> RunConfig:
    return config.validate({"data": {"source": "digits"}, **sections})


def publish(store: Store, key: Key, reads: tuple[Ref, ...] = (), content: str = "") -> Ref:
    """Publish an artifact of one file; its content is the key's digest by default."""

    def produce(folder: Path) -> Headline:
        (folder / "result.txt").write_text(content or key.digest)
        return {}

    return store.publish(key, reads, produce).ref


def run(store: Store, values: RunConfig) -> dict[Kind, Ref]:
    """Publish an artifact for every step."""
    refs: dict[Kind, Ref] = {}
    for step in STEPS:
        reads = tuple(refs[kind] for kind in step.reads)
        key = step.key(step.resolve(step.slice(values), Path()), reads)
        refs[step.makes] = publish(store, key, reads)
    return refs


def planned(
    store: Store, values: RunConfig, refresh: Collection[StepName] = ()
) -> dict[str, tuple[str, str]]:
    return {
        item.step.name: (item.state, item.why) for item in planning.plan(store, values, refresh)
    }


def assert_runs(plan: dict[str, tuple[str, str]], running: dict[str, str]) -> None:
    """Assert that these steps run for these reasons; the rest is cached or depends on them."""
    assert {name: why for name, (state, why) in plan.items() if state == "run"} == running
    followers = with_followers(running) - set(running)
    assert {name for name, (state, _) in plan.items() if state == "depends"} == followers
    assert {plan[name][1] for name in followers} <= {f"depends on {name}" for name in NAMES}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path)


@pytest.fixture
def full(store: Store) -> Store:
    """A store in which every step of the default settings is cached."""
    run(store, settings())
    return store


def test_in_an_empty_store_the_first_step_runs_and_the_others_depend_on_it(store: Store) -> None:
    """Planning writes nothing."""
    plan = planned(store, settings())
    assert list(plan) == NAMES
    assert plan["load_dataset"] == ("run", "no dataset in the store yet")
    assert {name: plan[name] for name in NAMES[1:]} == dict.fromkeys(
        NAMES[1:], ("depends", "depends on load_dataset")
    )
    assert list(store.root.iterdir()) == []


def test_after_a_run_everything_is_cached(full: Store) -> None:
    """The reason gives the time, and that the artifact was verified."""
    plan = planned(full, settings())
    assert {state for state, _ in plan.values()} == {"cached"}
    assert all(
        why.startswith("made 2") and why.endswith(" UTC, verified") for _, why in plan.values()
    )


CHANGES: list[tuple[dict[str, Any], dict[str, str]]] = [
    (
        {"train": {"learning_rate": 0.01, "steps": 7}},
        {"train_model": "train.learning_rate 0.008 -> 0.01; train.steps 160 -> 7"},
    ),
    (
        {"train": {"conv_bias": False, "log_split": "test"}},
        {"train_model": "train.conv_bias true -> false; train.log_split validation -> test"},
    ),
    ({"data": {"source": "digits", "split_seed": 4}}, {"load_dataset": "data.split_seed 0 -> 4"}),
    (
        {"evaluate": {"calibration_bins": 9}, "explain": {"patches_per_filter": 3}},
        {
            "evaluate_model": "evaluate.calibration_bins 15 -> 9",
            "mine_patches": "explain.patches_per_filter 12 -> 3",
        },
    ),
    ({"report": {"mistakes": 9}}, {"write_report": "report.mistakes 24 -> 9"}),
    ({"runtime": {"device": "cpu", "threads": 1}}, {}),
    ({"train": {"recipe": "fast", "steps": 160, "schedule": "linear"}}, {}),
]


@pytest.mark.parametrize(("sections", "running"), CHANGES)
def test_a_changed_setting_runs_the_steps_that_use_it(
    full: Store, sections: dict[str, Any], running: dict[str, str]
) -> None:
    """The reason gives the old and the new value; a step depends on the first that must run."""
    plan = planned(full, settings(**sections))
    assert_runs(plan, running)
    if running and plan["write_report"][0] == "depends":
        first = next(
            s.name for s in STEPS if s.makes in STEPS[-1].reads and plan[s.name][0] != "cached"
        )
        assert plan["write_report"][1] == f"depends on {first}"


def test_the_reason_compares_with_the_most_similar_artifact(full: Store) -> None:
    """However old it is; a tie goes to the newest."""
    run(full, settings(train={"seed": 5, "steps": 9, "dropout": 0.1}))
    run(full, settings(train={"seed": 2}))
    plan = planned(full, settings(train={"seed": 5, "steps": 9, "dropout": 0.2}))
    assert plan["train_model"] == ("run", "train.dropout 0.1 -> 0.2")
    plan = planned(full, settings(train={"seed": 3}))
    assert plan["train_model"] == ("run", "train.seed 2 -> 3")


def test_a_reason_names_at_most_six_differences(full: Store) -> None:
    """It stays one readable line."""
    _, why = planned(full, settings(train={"recipe": "best", "seed": 4}))["train_model"]
    assert why.count("; ") == 6
    assert why.endswith("; ...")
    assert "\n" not in why


def test_changed_code_is_named_after_the_settings(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings first, then every module, in one line."""
    changed, of = {"cnn.train.loop", "cnn.train.schedule"}, fingerprints.of

    def edited(*modules: str) -> dict[str, str]:
        return {name: digest + "x" * (name in changed) for name, digest in of(*modules).items()}

    monkeypatch.setattr(fingerprints, "of", edited)
    code = "code cnn/train/loop.py changed; code cnn/train/schedule.py changed"
    assert_runs(planned(full, settings()), {"train_model": code})
    plan = planned(full, settings(train={"learning_rate": 0.002}))
    assert_runs(plan, {"train_model": f"train.learning_rate 0.008 -> 0.002; {code}"})


@pytest.mark.parametrize("package", ["tensorflow", "keras"])
def test_a_changed_version_is_named(
    full: Store, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """Only major and minor versions count, and only for steps that compute with TensorFlow."""
    version = steps.version
    monkeypatch.setattr(
        steps, "version", lambda name: "99.1.3" if name == package else version(name)
    )
    before = ".".join(version(package).split(".")[:2])
    assert_runs(planned(full, settings()), {"train_model": f"{package} {before} -> 99.1"})


def test_a_changed_table_is_named(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key holds the schemas of the tables that its step writes."""
    monkeypatch.setattr(steps.schemas, "digest", lambda name: f"new {name}")
    assert_runs(planned(full, settings()), {"train_model": "table history changed"})


def test_a_changed_input_is_named(full: Store) -> None:
    """A step runs if the step before it now has another result under the same key."""
    (dataset,) = full.manifests("dataset")
    (full.open(dataset.ref) / "result.txt").write_text("damaged")
    publish(full, Key("dataset", dataset.components), content="other images")
    assert_runs(planned(full, settings()), {"train_model": "input dataset changed"})


def test_the_same_result_leaves_the_following_steps_cached(full: Store) -> None:
    """Keys hold the digests of inputs, not the settings that led to them."""
    other = settings(data={"source": "digits", "split_seed": 7})
    (dataset,) = full.manifests("dataset")
    key = LOAD_DATASET.key(LOAD_DATASET.resolve(other.data, Path()), [])
    publish(full, key, content=dataset.key)
    assert_runs(planned(full, other), {})


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_damage_is_the_reason_and_is_left_to_the_run(full: Store, step: steps.Step) -> None:
    """A plan names the damaged file and does not move the artifact to quarantine."""
    ref = next(full.manifests(step.makes)).ref
    (full.open(ref) / "result.txt").write_text("x" * 64)
    before = sorted(full.root.rglob("*"))
    plan = planned(full, settings())
    assert_runs(plan, {step.name: "artifact result.txt was changed"})
    assert sorted(full.root.rglob("*")) == before


def test_a_refresh_runs_a_step_and_those_that_follow(full: Store) -> None:
    """The requested step runs although it is cached; steps that do not follow stay cached."""
    plan = planned(full, settings(), refresh=["evaluate_model"])
    assert_runs(plan, {"evaluate_model": "asked for with --refresh"})
    assert plan["write_report"] == ("depends", "depends on evaluate_model")


def test_there_is_no_plan_for_data_that_cannot_be_read(store: Store, tmp_path: Path) -> None:
    """The error is the same as that of a run."""
    values = config.validate({"data": {"source": "folder", "path": str(tmp_path / "none")}})
    with pytest.raises(DataError, match="no such folder"):
        planning.plan(store, values)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], set()),
        (["load_dataset"], set(NAMES)),
        (["train_model"], set(NAMES) - {"load_dataset"}),
        (["export_filters"], {"export_filters", "write_report"}),
        (["mine_patches", "evaluate_model"], {"mine_patches", "evaluate_model", "write_report"}),
        (["write_report"], {"write_report"}),
    ],
)
def test_followers_read_what_a_step_makes(names: list[StepName], expected: set[str]) -> None:
    """Directly or through another step."""
    assert with_followers(names) == expected


def test_every_step_is_declared_once_and_after_the_steps_that_it_reads() -> None:
    """The steps can run in the order in which they are declared."""
    assert list(get_args(StepName)) == NAMES
    made: set[str] = set()
    for step in STEPS:
        assert set(step.reads) <= made
        assert step.makes not in made
        made.add(step.makes)
        assert fingerprints.of(step.code), step.code


def test_planning_imports_neither_tensorflow_nor_prefect(full: Store) -> None:
    """A plan takes no longer than reading the store."""
    code = f"""
import sys
from pathlib import Path
from cnn.config import run as config
from cnn.pipeline import planning
from cnn.store.store import Store
values = config.validate({{"data": {{"source": "digits"}}}})
states = [item.state for item in planning.plan(Store(Path({str(full.root)!r})), values)]
print(states, [name for name in ("tensorflow", "keras", "prefect") if name in sys.modules])
"""
    assert commands.run_python(code).stdout.strip() == f"{['cached'] * len(STEPS)} []"
