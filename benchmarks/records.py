"""Records of benchmarks: the parts, their comparisons, the machine; printed and stored."""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from os import cpu_count
from pathlib import Path
from typing import Any

from benchmarks.rounds import Spread
from cnn.train.device import cpu_name

Part = dict[str, Any]


def comparison(
    what: str, against: str, values: Sequence[float], others: Sequence[float], goal: str = ""
) -> Part:
    """Return one line of the table of ratios: our values divided by others'."""
    ratio = Spread.of_ratios(values, others)
    return {"what": what, "against": against, "ratio": vars(ratio), "goal": goal}


def options(parser: argparse.ArgumentParser, parts: Collection[str]) -> argparse.Namespace:
    """Return the command line's options; `parts` are the named ones, or all."""
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    unknown = set(asked.parts) - set(parts)
    if unknown:
        parser.error(f"no part is named {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    asked.parts = asked.parts or list(parts)
    return asked


def measure(path: Path, parts: Mapping[str, Callable[[], Part]]) -> Part:
    """Print what each part measures, store it in the JSON record at once, and return the record."""
    record: Part = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, part in parts.items():
        measured = part()
        show(name, measured)
        record[name] = {"machine": machine(), **measured}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def show(name: str, part: Part) -> None:
    """Print the results of one part."""
    print(f"\n{name}")
    for key, unit in {"rates": part.get("unit"), "seconds": "s", "megabytes": "MB"}.items():
        for peer, values in part.get(key, {}).items():
            spread = Spread.of(values)
            print(
                f"  {peer}: {spread.median:.4g} {unit} ({spread.lowest:.4g}-{spread.highest:.4g})"
            )
    for peer, runs in part.get("trainings", {}).items():
        right = [run["accuracy"] for run in runs]
        sd = statistics.stdev(right) if len(right) > 1 else 0.0
        print(f"  {peer}: mean {statistics.mean(right):.4f}, sd {sd:.4f}, {len(right)} seeds")
    for line in part.get("comparisons", []):
        ratio = Spread(**line["ratio"])
        print(
            f"  {line['what']} / {line['against']}: {ratio.median:.3f} "
            f"({ratio.lowest:.3f}-{ratio.highest:.3f}), goal {line['goal'] or 'none'}"
        )


def machine() -> Part:
    """Return the machine and the versions that measure."""
    packages = ("tensorflow", "keras", "numpy", *(["torch"] if find_spec("torch") else []))
    return {
        "processor": cpu_name(),
        "cores": cpu_count(),
        "python": sys.version.split()[0],
        **{package: version(package) for package in packages},
    }
