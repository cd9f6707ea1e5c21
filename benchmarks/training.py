"""Measures what is claimed about training and evaluation, against peers, in one run.

    FILTERSCOPE_MNIST_DIR=... python -m benchmarks.training [PART ...] [--rounds 5] [--seconds 5]

Whatever is compared takes turns, round by round, and each ratio comes from a single round; the
median is printed, with the smallest and largest in brackets. The results go to
benchmarks/training.json, and from there into the README's tables. Without PART all parts run, which
takes two hours on 2 cores; PyTorch needs the extra `peers`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from os import environ
from pathlib import Path

from benchmarks import readme, records, rounds
from benchmarks.records import Part, comparison
from benchmarks.rounds import PASSIVE
from cnn.train import precision, recipes

RECORD = Path(__file__).parent / "training.json"
# The best use of the notebook's 150,000 images that we know; not a recipe.
SAME_IMAGES = {
    **{"steps": 3000, "batch_size": 50, "learning_rate": 2e-3, "schedule": "one-cycle"},
    **{"warmup_fraction": 0.2, "beta2": 0.98, "dropout": 0.3, "label_smoothing": 0.1},
    **{"augment_shift": 1.0, "augment_rotation": 8.0, "augment_scale": 0.08},
}
AT_128 = SAME_IMAGES | {"steps": 1172, "batch_size": 128}
N_SEEDS = {"fast": 30, "best": 5, "notebook": 5, "spec": 5, "same images": 10}


def batch_50(n_rounds: int, seconds: float) -> Part:
    """Return the steps per second of every peer at the notebook's batch size."""
    peers = {
        "filterscope": ("ours:steps", "batch=50"),
        "filterscope, determinism off": ("ours:steps", "batch=50", "determinism=off"),
        "notebook's graph": ("notebook:steps", "batch=50"),
        "Keras fit": ("keras_fit:steps", "batch=50"),
        "Keras fit, 100 steps per execution": (
            *("keras_fit:steps", "batch=50", "steps_per_execution=100"),
        ),
        "floor": ("floor:steps", "batch=50"),
    }
    if find_spec("torch"):
        peers["PyTorch, channels_last"] = ("pytorch:steps", "batch=50")
        peers["PyTorch, compiled"] = ("pytorch:steps", "batch=50", "mode=compiled")
    rates = rounds.rates(peers, n_rounds, seconds)
    goals = {"Keras fit": "≥ 1.3", "PyTorch, channels_last": "≥ 1.25", "floor": "≥ 0.88"}
    what, ours = "steps/s, float32, batch 50", rates["filterscope"]
    lines = [
        comparison(what, name, ours, theirs, goals.get(name, ""))
        for name, theirs in rates.items()
        if not name.startswith("filterscope")
    ]
    off = rates["filterscope, determinism off"]
    lines.append(comparison("time of a step, determinism on", "off", off, ours, "≤ 1.02"))
    return {"rates": rates, "unit": "steps/s", "comparisons": lines}


def batch_128(n_rounds: int, seconds: float) -> Part:
    """Return the steps per second at 128 images, in the fastest precision of this processor."""
    best = "bfloat16" if precision.has_bfloat16() else "float32"
    peers = {
        "filterscope": ("ours:steps", "batch=128", f"precision={best}"),
        "filterscope, float32": ("ours:steps", "batch=128"),
        "floor": ("floor:steps", "batch=128"),
    }
    rates = rounds.rates(peers, n_rounds, seconds)
    what, ours = f"images/s, {best}, batch 128", rates["filterscope"]
    lines = [
        comparison(what, "own float32", ours, rates["filterscope, float32"], "≥ 1.4"),
        comparison(what, "floor, float32", ours, rates["floor"], "≥ 1"),
    ]
    return {"rates": rates, "unit": "steps/s", "comparisons": lines}


def bfloat16(n_rounds: int, seconds: float) -> Part:
    """Return the accuracies of one training in both precisions, 10 seeds each."""
    peers = {
        name: (
            "ours:training",
            "recipe=spec",
            f"changes={json.dumps(AT_128 | {'precision': name})}",
        )
        for name in ("float32", "bfloat16")
    }
    return {"trainings": trainings(peers, dict.fromkeys(peers, 10))}


def accuracy(n_rounds: int, seconds: float) -> Part:
    """Return times and accuracies of the notebook's graph and of all recipes but `best`."""
    changes = f"changes={json.dumps(SAME_IMAGES)}"
    peers = {
        "notebook's graph": ("notebook:training",),
        "notebook": ("ours:training", "recipe=notebook"),
        "spec": ("ours:training", "recipe=spec"),
        "fast": ("ours:training", "recipe=fast"),
        "same images": ("ours:training", "recipe=spec", changes),
    }
    measured = trainings(peers, {name: N_SEEDS.get(name, n_rounds) for name in peers})
    times = {name: [run["seconds"] for run in runs] for name, runs in measured.items()}
    n = min(len(times["notebook's graph"]), len(times["fast"]))
    line = comparison(
        "time to the notebook's accuracy, recipe fast",
        "notebook's graph, 3000 steps",
        times["notebook's graph"][:n],
        times["fast"][:n],
        "≥ 12",
    )
    return {"trainings": measured, "comparisons": [line]}


def best(n_rounds: int, seconds: float) -> Part:
    """Return times and accuracies of `best` and of the notebook's graph."""
    peers = {
        "notebook's graph": ("notebook:training",),
        "best": ("ours:training", "recipe=best"),
    }
    return {"trainings": trainings(peers, dict.fromkeys(peers, N_SEEDS["best"]))}


def trainings(peers: rounds.Peers, n_seeds: Mapping[str, int]) -> dict[str, list[Part]]:
    """Return seconds and test accuracy of each peer's training for seeds 0, 1, ..., in turns."""
    found: dict[str, list[Part]] = {name: [] for name in peers}
    with rounds.waiting(peers) as ready:
        for seed in range(max(n_seeds.values())):
            for name, one in ready.items():
                if seed < n_seeds[name]:
                    took, right = one.timed(seed)
                    found[name].append({"seed": seed, "seconds": took, "accuracy": right})
                    print(f"{name}, seed {seed}: {right:.4f} in {took:.1f} s", flush=True)
    return found


def evaluation(n_rounds: int, seconds: float) -> Part:
    """Return how many times per second the 10,000 test images are evaluated."""
    peers = {
        "filterscope": ("ours:evaluation",),
        "model.predict": ("keras_fit:prediction",),
    }
    taken: dict[str, list[float]] = {name: [] for name in peers}
    with rounds.waiting(peers) as ready:
        for _ in range(2 * n_rounds):
            for name, one in ready.items():
                taken[name].append(one.timed(1)[0])
    line = comparison(
        "evaluation of 10,000 images", "model.predict", *reversed(list(taken.values())), "≥ 2"
    )
    return {"seconds": taken, "comparisons": [line]}


def cold(n_rounds: int, seconds: float) -> Part:
    """Return the seconds of whole processes, from start to a model on disk."""
    modules = {"filterscope": "benchmarks.peers.ours", "notebook": "benchmarks.peers.notebook"}
    taken = processes({name: ["-m", module] for name, module in modules.items()}, n_rounds)
    line = comparison(
        "recipe fast, cold process to model on disk",
        "notebook as a script",
        taken["notebook"],
        taken["filterscope"],
        "≥ 3.5",
    )
    return {"seconds": taken, "comparisons": [line]}


def flow(n_rounds: int, seconds: float) -> Part:
    """Return the seconds of a run under Prefect, of its work alone, and of starting Prefect."""
    source = ["--data.source", "folder", "--data.path", environ["FILTERSCOPE_MNIST_DIR"]]
    start = "import sys; from flows.cli import main; sys.exit(main())"
    run = ["-c", start, "run", "--train.recipe", "spec", *source, "--store"]
    commands = {
        "run": run,
        "script": ["-m", "benchmarks.peers.script"],
        "Prefect's start": ["-m", "benchmarks.peers.empty_flow"],
    }
    taken = processes(commands, n_rounds)
    without = [a - b for a, b in zip(taken["run"], taken["Prefect's start"], strict=True)]
    line = comparison(
        "time of a run, less Prefect's start",
        "its work as a script",
        without,
        taken["script"],
        "≤ 1.05",
    )
    return {"seconds": taken, "comparisons": [line]}


def processes(commands: Mapping[str, Sequence[str]], n_rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each Python process, in turns; its last argument is a new path."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(n_rounds):
        for name, words in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                own = {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_LOGGING_LEVEL": "WARNING"}
                started = time.perf_counter()
                subprocess.run(
                    [sys.executable, *words, f"{folder}/out"],
                    env=environ | PASSIVE | own,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                taken[name].append(time.perf_counter() - started)
    return taken


PARTS: dict[str, Callable[[int, float], Part]] = {
    part.__name__: part
    for part in (batch_50, batch_128, evaluation, cold, flow, bfloat16, accuracy, best)
}


def main() -> None:
    """Measure the named parts, or all; print the results, and write them to the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of one peer in one round")
    asked = records.options(parser, PARTS)
    parts = {name: partial(PARTS[name], asked.rounds, asked.seconds) for name in asked.parts}
    record = records.measure(RECORD, parts)
    text = readme.README.read_text(encoding="utf-8")
    readme.README.write_text(readme.filled(text, record, recipes.RECIPES), encoding="utf-8")


if __name__ == "__main__":
    main()
