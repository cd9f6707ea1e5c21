"""The README's figures are those that were measured."""

import json

from benchmarks import mining, readme, training
from benchmarks.rounds import Spread
from cnn.train import recipes

MACHINE = {"processor": "Some CPU", "cores": 2, "tensorflow": "2.21.0", "keras": "3.15.1"}


def _runs(*measured: tuple[float, float]) -> list[dict[str, float]]:
    return [{"seconds": seconds, "accuracy": accuracy} for seconds, accuracy in measured]


RECORD = {
    "batch_50": {
        "machine": MACHINE,
        "comparisons": [
            {
                "what": "steps/s",
                "against": "floor",
                "ratio": {"median": 0.768, "lowest": 0.7, "highest": 0.81},
                "goal": "≥ 0.88",
            }
        ],
    },
    "accuracy": {
        "machine": MACHINE,
        "trainings": {
            "notebook's graph": _runs((30.0, 0.98), (40.0, 0.978)),
            "fast": _runs((3.0, 0.982), (4.0, 0.981), (3.5, 0.98)),
        },
    },
    "bfloat16": {
        "machine": MACHINE,
        "trainings": {
            "float32": _runs((30.0, 0.992), (30.0, 0.994)),
            "bfloat16": _runs((20.0, 0.993), (20.0, 0.993)),
        },
    },
    "best": {
        "machine": MACHINE,
        "trainings": {
            "notebook's graph": _runs((31.0, 0.98), (29.0, 0.978)),
            "best": _runs((300.0, 0.997), (310.0, 0.996)),
        },
    },
}
EMPTY = "".join(
    f"{name}\n<!-- {name} -->\nwhat was there\n<!-- end of {name} -->\n"
    for name in ("machine", "accuracies", "precisions", "ratios")
)


def test_the_readme_says_what_the_record_has() -> None:
    """Who measures anew, or changes a recipe, must not leave the old figures standing."""
    record = json.loads(training.RECORD.read_text(encoding="utf-8"))
    assert set(record) == set(training.PARTS), "a part was not measured"
    text = readme.README.read_text(encoding="utf-8")
    assert readme.filled(text, record, recipes.RECIPES) == text


def test_the_readme_says_what_the_record_of_mining_has() -> None:
    """Who measures mining anew must not leave the old figures standing."""
    record = json.loads(mining.RECORD.read_text(encoding="utf-8"))
    assert set(record) == set(mining.PARTS), "a part was not measured"
    text = readme.README.read_text(encoding="utf-8")
    assert readme.mined(text, record) == text


def test_figures_of_mining_come_from_the_record() -> None:
    """Its machine, ratios, and the median pace of each layer that was measured."""
    ratio = {"median": 0.912, "lowest": 0.9, "highest": 0.93}
    line = {"what": "images/s", "against": "convolution", "ratio": ratio, "goal": "≥ 0.85"}
    rates = {"filterscope": [151_000.4, 149_000.0, 155_000.0], "convolution": [1.0, 1.0, 1.0]}
    record = {"conv1": {"machine": MACHINE, "rates": rates, "comparisons": [line]}}
    text = readme.mined("<!-- mining -->\nwhat was there\n<!-- end of mining -->\n", record)
    assert "what was there" not in text
    assert "On 2 cores of Some CPU, TensorFlow 2.21.0, Keras 3.15.1:" in text
    assert "| images/s | convolution | 0.91 (0.90 to 0.93) | ≥ 0.85 |" in text
    assert "151,000 images a second for conv1." in text


def test_each_figure_comes_from_the_record() -> None:
    """Medians, means, deviations; each ratio is that of two runs of the same turn."""
    text = readme.filled(EMPTY, RECORD, recipes.RECIPES)
    assert "what was there" not in text
    assert "On 2 cores of Some CPU, TensorFlow 2.21.0, Keras 3.15.1:" in text
    assert "| steps/s | floor | 0.77 (0.70 to 0.81) | ≥ 0.88 |" in text
    assert "99.30 ± 0.14 % in float32 (2 seeds), 99.30 ± 0.00 % in bfloat16 (2 seeds)." in text
    fast, best = (line for line in text.splitlines() if line.startswith(("| `fast`", "| `best`")))
    assert fast.endswith("| 10,240 | 160 | 98.10 ± 0.10 % | 3 | 3.5 | 10.0 times as fast |")
    assert best.endswith("| 3,840,000 | 30,000 | 99.65 ± 0.07 % | 2 | 305.0 | 10.2 times as long |")


def test_machines_that_measured_different_parts_are_told_apart() -> None:
    """Figures of two machines must not pass for those of one."""
    other = {**RECORD, "best": {**RECORD["best"], "machine": MACHINE | {"cores": 4}}}
    text = readme.filled(EMPTY, other, recipes.RECIPES)
    assert (
        "On 2 cores of Some CPU, TensorFlow 2.21.0, Keras 3.15.1 (batch_50, accuracy, bfloat16):"
        in text
    )
    assert "On 4 cores of Some CPU, TensorFlow 2.21.0, Keras 3.15.1 (best):" in text


def test_a_ratio_is_that_of_one_round() -> None:
    """Not that of two medians: what slows a whole round slows both."""
    spread = Spread.of_ratios([4.0, 9.0, 5.0], [2.0, 3.0, 2.5])
    assert (spread.median, spread.lowest, spread.highest) == (2, 2, 3)
