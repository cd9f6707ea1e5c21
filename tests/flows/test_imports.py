"""Imports leave out slow modules: TensorFlow takes several seconds, Prefect one."""

import pytest

from tests import commands

HEAVY = {"tensorflow", "keras", "prefect", "matplotlib"}


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import flows.train_and_explain", {"tensorflow", "keras", "matplotlib.pyplot"}),
        ("import flows.cli", HEAVY),
        ("import flows.report_server, uvicorn", {*HEAVY, "pandas"}),
        ("from cnn.pipeline import planning\nfrom cnn.runs import records", HEAVY),
        (
            "from cnn.report.pages import body\nfrom cnn.report.figures import overview",
            {"tensorflow", "keras", "matplotlib.pyplot"},
        ),
        ("import cnn.train.fit, cnn.explain.patches, cnn.evaluate.evaluation", {"tensorflow"}),
    ],
)
def test_an_import_leaves_out_slow_modules(statement: str, forbidden: set[str]) -> None:
    """A new interpreter that runs the statement loads none of them."""
    script = f"{statement}\nimport sys\nprint(sorted({forbidden!r} & set(sys.modules)))"
    assert commands.run_python(script).stdout.strip() == "[]"
