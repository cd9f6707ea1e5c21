"""The self-contained HTML page of one run: the cached body, and what differs between runs."""

from typing import Any

from markupsafe import Markup

from cnn.report import html
from cnn.store.runs import RunRecord


def compose(record: RunRecord, body: str) -> str:
    """Return report.html: one file that needs no network and runs no script."""
    environment = record.environment
    device = environment.get("device") or {}
    machine = (
        f"Python {environment['python']}, TensorFlow {environment['tensorflow']}, "
        f"Keras {environment['keras']}, NumPy {environment['numpy']}; model trained on "
        f"{device.get('name', 'an unknown device')} with {device.get('threads', '?')} threads, "
        f"{environment['precision']}"
    )
    # The body is our own template's output, in which all text from data was escaped.
    return html.render(
        "page.html", run=record, title=title(record), body=Markup(body), machine=machine
    )


def title(record: RunRecord) -> str:
    """Return the run's title: data, recipe, seed, and whether the data are a substitute."""
    substitute = ", in place of MNIST" if record.note else ""
    return f"{record.data}{substitute}: recipe {record.recipe}, seed {record.seed}"


def metric_rows(headline: dict[str, Any]) -> list[dict[str, str]]:
    """Return the accuracy of each split in words, for a table in the Prefect UI."""
    return [
        {
            "split": split,
            "accuracy": html.percent(headline[f"{split}_accuracy"]),
            "95 % interval": f"{html.percent(headline[f'{split}_accuracy_ci_low'])} to "
            f"{html.percent(headline[f'{split}_accuracy_ci_high'])}",
            "images": f"{headline[f'n_{split}']:,}",
        }
        for split in ("test", "validation")
        if f"{split}_accuracy" in headline
    ]
