"""What the command prints for machines."""

import json
import math

import pytest

from flows import console


def test_only_strict_json_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN that reaches the output is an error there, not a token that parsers refuse."""
    console.as_json({"loss": 2.5})
    assert json.loads(capsys.readouterr().out) == {"loss": 2.5}
    with pytest.raises(ValueError, match="JSON"):
        console.as_json({"loss": math.nan})
