"""A run that diverges leaves earlier results alone, and no NaN where machines read JSON."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnn.config import run as config
from cnn.train.fit import DivergedError
from flows.train_and_explain import train_and_explain
from tests.flows.conftest import SHORT, Command, Finished, ui_artifacts


def _models(store: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (store / "store/model").rglob("*.keras")}


def _runs(store: Path) -> Iterable[Path]:
    return (store / "runs").glob("2*")


def _strictly(text: str) -> Any:
    return json.loads(text, parse_constant=pytest.fail)


def test_a_diverged_run_leaves_the_older_model_and_strict_json(
    finished: Finished, store: Path, command: Command
) -> None:
    """The history ends with the divergence; no artifact and no `--json` output has NaN."""
    before = _models(store)
    evaluations, runs = set((store / "store/evaluation").iterdir()), set(_runs(store))
    wild = config.validate(SHORT | {"train": {**SHORT["train"], "learning_rate": 1e6}})
    with pytest.raises(DivergedError, match=r"at step \d+ of 60 \(epoch \d"):
        train_and_explain(wild, store=store)
    assert _models(store) == before
    assert set((store / "store/evaluation").iterdir()) == evaluations
    (failed,) = set(_runs(store)) - runs
    record = _strictly((failed / "run.json").read_text())
    states = [step["state"] for step in record["steps"]]
    assert (record["status"], states) == ("failed", ["cached", "failed"])
    assert pd.read_parquet(failed / "tables/history.parquet")["status"].iloc[-1] == "diverged"
    for item in ui_artifacts(record["flow_run_id"]).values():
        is_json = isinstance(item.data, str) and item.data[:1] in "[{"
        _strictly(item.data if is_json else json.dumps(item.data))
    names = (failed.name, finished.folder.name)
    for words in (
        ["runs"],
        *(["show", name] for name in names),
        ["plan", "--data.source", "digits"],
    ):
        code, output, _ = command(*words, "--json", "--store", str(store))
        assert code == 0
        assert _strictly(output)
