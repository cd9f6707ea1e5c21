"""What a plan says: which steps are cached, which will run, and why."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

import pytest

from cnn.config import run as config
from cnn.config.run import RunConfig, StepName
from cnn.errors import DataError
from cnn.pipeline import fingerprints, planning, steps
from cnn.pipeline.steps import LOAD_DATASET, STEPS, TRAIN_MODEL, with_followers
from cnn.store.manifests import Headline
from cnn.store.refs import Kind, Ref
from cnn.store.store import Store

NAMES = [step.name for step in STEPS]


def settings(**sections: Any) -> RunConfig:
    return config.validate({"data": {"source": "digits"}, **sections})


def run(store: Store, values: RunConfig) -> dict[Kind, Ref]:
    """Publish an artifact for every step, its content a function of its key."""
    refs: dict[Kind, Ref] = {}
    for step in STEPS:
        key = step.key(
            step.resolve(step.slice(values), Path()), [refs[kind] for kind in step.reads]
        )

        def produce(folder: Path, content: str = key.digest) -> Headline:
            (folder / "result.txt").write_text(content)
            return {}

        refs[step.makes] = store.publish(key, tuple(refs[kind] for kind in step.reads), produce).ref
    return refs


def planned(
    store: Store, values: RunConfig, refresh: Collection[StepName] = ()
) -> dict[str, tuple[str, str]]:
    return {
        item.step.name: (item.state, item.why) for item in planning.plan(store, values, refresh)
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path)


@pytest.fixture
def full(store: Store) -> Store:
    """A store in which every step of the default settings is cached."""
    run(store, settings())
    return store


def test_in_an_empty_store_the_first_step_runs_and_the_rest_depends(store: Store) -> None:
    """Behind a step that must run, a step is neither cached nor due."""
    plan = planned(store, settings())
    assert list(plan) == NAMES
    assert plan["load_dataset"] == ("run", "no dataset in the store yet")
    assert {name: plan[name] for name in NAMES[1:]} == dict.fromkeys(
        NAMES[1:], ("depends", "depends on load_dataset")
    )
    assert list(store.root.iterdir()) == []


def test_after_a_run_everything_is_cached(full: Store) -> None:
    """The reason says when it was made and that it was verified."""
    plan = planned(full, settings())
    assert {state for state, _ in plan.values()} == {"cached"}
    assert all(why.endswith("UTC, verified") for _, why in plan.values())


CHANGES: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({"train": {"seed": 1}}, {"train_model": "train.seed 0 -> 1"}, "train_model"),
    (
        {"train": {"learning_rate": 0.01, "steps": 7}},
        {"train_model": "train.learning_rate 0.008 -> 0.01; train.steps 160 -> 7"},
        "train_model",
    ),
    (
        {"data": {"source": "digits", "split_seed": 4}},
        {"load_dataset": "data.split_seed 0 -> 4"},
        "load_dataset",
    ),
    (
        {"explain": {"split": "train"}},
        {"mine_patches": "explain.split test -> train"},
        "mine_patches",
    ),
    (
        {"evaluate": {"calibration_bins": 9}, "explain": {"patches_per_filter": 3}},
        {
            "evaluate_model": "evaluate.calibration_bins 15 -> 9",
            "mine_patches": "explain.patches_per_filter 12 -> 3",
        },
        "evaluate_model",
    ),
    ({"report": {"mistakes": 9}}, {"write_report": "report.mistakes 24 -> 9"}, ""),
    ({"runtime": {"device": "cpu", "threads": 1}}, {}, ""),
    ({"train": {"recipe": "fast", "steps": 160, "schedule": "linear"}}, {}, ""),
]


@pytest.mark.parametrize(("sections", "running", "depended"), CHANGES)
def test_the_reason_names_what_differs(
    full: Store, sections: dict[str, Any], running: dict[str, str], depended: str
) -> None:
    """A changed setting runs the steps that use it, and nothing else anew."""
    plan = planned(full, settings(**sections))
    followers = with_followers(set(running)) - set(running)
    for name in NAMES:
        if name in running:
            assert plan[name] == ("run", running[name])
        elif name in followers:
            assert plan[name] == ("depends", f"depends on {depended}")
        else:
            assert plan[name][0] == "cached"


def test_a_recipe_is_its_numbers(full: Store) -> None:
    """Another recipe with every number overridden to the first one's asks for the same."""
    fast = {
        **{"steps": 160, "batch_size": 64, "learning_rate": 8e-3, "schedule": "linear"},
        **{"warmup_fraction": 0.2, "beta1": 0.8, "beta2": 0.98, "dropout": 0.0},
        **{"label_smoothing": 0.1, "precision": "auto"},
    }
    plan = planned(full, settings(train={"recipe": "spec", **fast}))
    assert plan["train_model"][0] == "cached"


def test_the_nearest_earlier_artifact_is_compared_with(full: Store) -> None:
    """Of all that was made, the one that differs least is named; of two, the newer."""
    run(full, settings(train={"seed": 5, "steps": 9, "dropout": 0.1}))
    run(full, settings(train={"seed": 2}))
    plan = planned(full, settings(train={"seed": 5, "steps": 9, "dropout": 0.2}))
    assert plan["train_model"] == ("run", "train.dropout 0.1 -> 0.2")
    plan = planned(full, settings(train={"seed": 3}))
    assert plan["train_model"] == ("run", "train.seed 2 -> 3")


def test_many_differences_are_cut_short(full: Store) -> None:
    """A reason stays one readable line."""
    plan = planned(full, settings(train={"recipe": "best", "seed": 4}))
    assert plan["train_model"][1].endswith("; ...")
    assert plan["train_model"][1].count(";") == 6


def test_changed_code_and_versions_are_named(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of the training loop retrains; a new Keras runs what computes with it."""
    of = fingerprints.of
    monkeypatch.setattr(
        fingerprints,
        "of",
        lambda *names: {k: v + "x" * (k == "cnn.train.loop") for k, v in of(*names).items()},
    )
    plan = planned(full, settings())
    assert plan["load_dataset"][0] == "cached"
    assert plan["train_model"] == ("run", "code cnn/train/loop.py changed")
    monkeypatch.undo()
    monkeypatch.setattr(steps, "version", lambda name: "99.1.3")
    plan = planned(full, settings())
    assert plan["load_dataset"][0] == "cached"
    assert "-> 99.1" in plan["train_model"][1]
    assert "99.1.3" not in plan["train_model"][1]


def test_a_changed_schema_is_named(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with other columns is written anew."""
    monkeypatch.setattr(steps.schemas, "digest", lambda name: f"new {name}")
    assert planned(full, settings())["train_model"] == ("run", "table history changed")


def test_damage_is_the_reason_and_stays_where_it_is(full: Store) -> None:
    """A plan names the damage, and leaves setting it aside to the run."""
    ref = next(full.manifests("model")).ref
    (full.open(ref) / "result.txt").write_text("x" * 64)
    before = sorted(full.root.rglob("*"))
    plan = planned(full, settings())
    assert plan["train_model"] == ("run", "artifact result.txt was changed")
    assert plan["write_report"] == ("depends", "depends on train_model")
    assert sorted(full.root.rglob("*")) == before


def test_a_refresh_runs_a_step_and_what_follows(full: Store) -> None:
    """What was asked for runs although it is cached; what does not follow stays cached."""
    plan = planned(full, settings(), refresh=["evaluate_model"])
    assert plan["evaluate_model"] == ("run", "asked for with --refresh")
    assert plan["write_report"] == ("depends", "depends on evaluate_model")
    others = set(NAMES) - {"evaluate_model", "write_report"}
    assert {plan[name][0] for name in others} == {"cached"}


def test_data_that_cannot_be_read_end_the_plan(store: Store, tmp_path: Path) -> None:
    """There is no plan for a folder that is not there."""
    values = config.validate({"data": {"source": "folder", "path": str(tmp_path / "none")}})
    with pytest.raises(DataError, match="there is no such folder"):
        planning.plan(store, values)


def test_the_same_result_leaves_what_follows_cached(full: Store) -> None:
    """Keys are made of digests: a step that makes the same again runs nothing else."""
    other = settings(data={"source": "digits", "split_seed": 7})
    first, second = (
        LOAD_DATASET.key(LOAD_DATASET.resolve(values.data, Path()), [])
        for values in (settings(), other)
    )

    def produce(folder: Path) -> Headline:
        (folder / "result.txt").write_text(first.digest)
        return {}

    full.publish(second, (), produce)
    assert {state for state, _ in planned(full, other).values()} == {"cached"}


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], set()),
        (["load_dataset"], set(NAMES)),
        (["train_model"], set(NAMES) - {"load_dataset"}),
        (["export_filters"], {"export_filters", "write_report"}),
        (["mine_patches", "evaluate_model"], {"mine_patches", "evaluate_model", "write_report"}),
        (["write_report"], {"write_report"}),
    ],
)
def test_followers_are_all_that_read_what_a_step_makes(
    names: list[StepName], wanted: set[str]
) -> None:
    """Directly or through another step."""
    assert with_followers(names) == wanted


def test_every_step_is_declared_once_and_after_what_it_reads() -> None:
    """The order of the steps is one in which they can run."""
    assert list(get_args(StepName)) == NAMES
    made: set[str] = set()
    for step in STEPS:
        assert set(step.reads) <= made
        assert step.makes not in made
        made.add(step.makes)
        assert fingerprints.of(step.code), step.code


def test_a_key_holds_the_settings_of_its_step_only() -> None:
    """What a step is not given cannot change its key; nothing of runtime is in any."""
    key = TRAIN_MODEL.key(TRAIN_MODEL.resolve(settings().train, Path()), [])
    assert {name.split(".")[0] for name in key.components["settings"]} == {"train"}
    assert "train.recipe" not in key.components["settings"]
    assert set(key.components["versions"]) == {"tensorflow", "keras"}
    load = LOAD_DATASET.key(LOAD_DATASET.resolve(settings().data, Path()), [])
    assert load.components["versions"] == {}
    assert "data.path" not in load.components["settings"]


def test_planning_imports_neither_tensorflow_nor_prefect(full: Store) -> None:
    """A plan costs no more than reading the store."""
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
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"{['cached'] * len(STEPS)} []"
