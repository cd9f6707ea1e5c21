"""Writes the results of the benchmarks into the README, between its markers."""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.rounds import Spread
from cnn.config.training import Training

README = Path(__file__).parent.parent / "README.md"
_WHAT = {
    "notebook's graph": "the notebook's graph, TensorFlow 1 with feeds",
    "notebook": "the 2018 coursework notebook, faults included",
    "spec": "the same network as its text describes it",
    "fast": "least time to the notebook's accuracy",
    "same images": "the notebook's 150,000 images, as well used as we can; no recipe",
    "best": "highest accuracy from the same network",
}


def filled(text: str, record: Mapping[str, Any], recipes: Mapping[Any, Training]) -> str:
    """Return the README's text with the machine and the tables of a training record."""
    text = _between(text, "machine", list(_machines(record)))
    text = _between(text, "accuracies", list(_accuracies(record, recipes)))
    text = _between(text, "precisions", list(_precisions(record)))
    return _between(text, "ratios", list(_ratios(record)))


def mined(text: str, record: Mapping[str, Any]) -> str:
    """Return the README's text with the machine and the table of a mining record."""
    lines = [*_machines(record), "", *_ratios(record), "", *_mining_rates(record)]
    return _between(text, "mining", lines)


def _between(text: str, name: str, lines: list[str]) -> str:
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return before + start + "".join(f"{line}\n" for line in lines) + end + after


def _machines(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield each machine once, with the parts that were measured on it."""
    parts: dict[str, list[str]] = {}
    for name, part in record.items():
        parts.setdefault(_described(part["machine"]), []).append(name)
    for machine, names in parts.items():
        which = "" if len(parts) == 1 else f" ({', '.join(names)})"
        yield f"On {machine}{which}:"


def _described(machine: Mapping[str, Any]) -> str:
    packages = {"tensorflow": "TensorFlow", "keras": "Keras", "torch": "PyTorch"}
    versions = [f"{packages[name]} {machine[name]}" for name in packages if name in machine]
    return f"{machine['cores']} cores of {machine['processor']}, {', '.join(versions)}"


def _accuracies(record: Mapping[str, Any], recipes: Mapping[Any, Training]) -> Iterator[str]:
    yield (
        "| recipe | what it is | images seen | steps | test accuracy, mean ± sd | seeds | seconds "
        "| beside the notebook's graph |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, runs, graph in _trainings(record):
        # The graph and what it is compared with see as many images as the recipe `notebook`.
        size = recipes.get(name, recipes["notebook"])
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(graph, runs, strict=False)]
        yield (
            f"| {f'`{name}`' if name in recipes else ''} | {_WHAT[name]} "
            f"| {size.steps * size.batch_size:,} | {size.steps:,} "
            f"| {_mean_and_sd(runs)} | {len(runs)} "
            f"| {statistics.median(run['seconds'] for run in runs):.1f} "
            f"| {_times(statistics.median(ratios))} |"
        )


def _precisions(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the accuracy of one training in each precision."""
    measured = record.get("bfloat16", {}).get("trainings", {})
    reached = [
        f"{_mean_and_sd(runs)} in {name} ({len(runs)} seeds)" for name, runs in measured.items()
    ]
    if reached:
        yield f"The 150,000 images in batches of 128: {', '.join(reached)}."


def _mean_and_sd(runs: list[Any]) -> str:
    right = [100 * run["accuracy"] for run in runs]
    return f"{statistics.mean(right):.2f} ± {statistics.stdev(right):.2f} %"


def _trainings(record: Mapping[str, Any]) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield a name, its runs, and the runs of the notebook's graph that alternated with them."""
    for part, names in {"accuracy": list(_WHAT)[:-1], "best": ["best"]}.items():
        measured = record.get(part, {}).get("trainings", {})
        for name in names:
            if name in measured:
                yield name, measured[name], measured["notebook's graph"]


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times as long"


def _ratios(record: Mapping[str, Any]) -> Iterator[str]:
    yield "| what | against | ratio, median (lowest to highest) | goal |"
    yield "| --- | --- | --- | --- |"
    for part in record.values():
        for line in part.get("comparisons", []):
            ratio = Spread(**line["ratio"])
            yield (
                f"| {line['what']} | {line['against']} | {ratio.median:.2f} "
                f"({ratio.lowest:.2f} to {ratio.highest:.2f}) | {line['goal']} |"
            )


def _mining_rates(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mining speed of each layer."""
    rates = {
        layer: Spread.of(record[layer]["rates"]["filterscope"])
        for layer in ("conv1", "conv2")
        if layer in record
    }
    measured = [f"{rate.median:,.0f} images a second for {name}" for name, rate in rates.items()]
    if measured:
        yield f"The twelve strongest patches of all filters: {', '.join(measured)}."
