"""Tries training settings on MNIST's validation images, for the tables of docs/training.md.

    FILTERSCOPE_MNIST_DIR=... python -m benchmarks.sweep TRIALS.json RESULTS.jsonl [--threads 1]

TRIALS.json is a list of {"name", "recipe", "changes", "seeds"}. A line of RESULTS.jsonl is one
training, with its validation accuracy and loss. Test accuracy is reported too, but nothing is
chosen by it.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.peers import ours
from cnn.config.run import RuntimeConfig
from cnn.errors import TrainingError
from cnn.train import device, fit


def main() -> None:
    """Train each trial with each of its seeds; append a line for each to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    device.prepare(RuntimeConfig(threads=options.threads))
    data = ours.dataset()
    for trial in json.loads(options.trials.read_text(encoding="utf-8")):
        settings = ours.changed(trial["recipe"], trial["changes"])
        for seed in trial["seeds"]:
            started = time.monotonic()
            try:
                fitted = fit.fit(data, settings, seed)
            except TrainingError as error:
                found: dict[str, object] = {"failed": str(error)}
            else:
                parts = ("validation", "test")
                found = {part: ours.accuracy(fitted.model, data, part) for part in parts}
                found["validation_loss"] = fitted.history[-1].loss
            line = {**trial, "seeds": seed, "seconds": time.monotonic() - started, **found}
            print(json.dumps(line), flush=True)
            with options.results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
