"""What is imported when: TensorFlow costs seconds, Prefect one."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import flows.train_and_explain", {"tensorflow", "keras", "matplotlib.pyplot"}),
        ("import flows.cli", {"tensorflow", "keras", "prefect", "matplotlib"}),
        (
            "from cnn.pipeline import planning\nfrom cnn.runs import records",
            {"tensorflow", "keras", "prefect", "matplotlib"},
        ),
        (
            "from cnn.report.pages import body\nfrom cnn.report.figures import overview",
            {"tensorflow", "keras", "matplotlib.pyplot"},
        ),
        ("import cnn.train.fit, cnn.explain.patches, cnn.evaluate.evaluation", {"tensorflow"}),
    ],
)
def test_an_import_leaves_out_what_it_does_not_need(statement: str, forbidden: set[str]) -> None:
    """A fresh interpreter that ran the statement has none of the modules."""
    script = f"{statement}\nimport sys\nprint(sorted({forbidden!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
