"""Case 08: file names with dots, unpacked files, both kinds at once."""

import socket
from pathlib import Path
from typing import Any

import pytest

from cnn.errors import DataError
from tests.cases import inputs

GOOD = inputs.good_set()
NAMES = {
    "dashes": "{part}-idx{rank}-{word}.gz",
    "dotted": "{part}.idx{rank}-{word}",
    "plain": "{part}-idx{rank}-{word}",
    "dotted gz": "{part}.idx{rank}-{word}.gz",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to connect ends the test."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a file that is there was looked for in the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("order", [1, -1])
def test_any_mixture_of_names_is_found(tmp_path: Path, first: str, second: str, order: int) -> None:
    """Dash or dot, packed or not, in any combination."""
    parts = list(GOOD.items())[::order]
    inputs.write_set(tmp_path, dict(parts[:2]), name=NAMES[first])
    inputs.write_set(tmp_path, dict(parts[2:]), name=NAMES[second])
    inputs.assert_equal(inputs.load(tmp_path), GOOD)


@pytest.mark.parametrize("part", GOOD)
def test_two_that_differ_are_refused_and_two_that_agree_are_not(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Which of two is meant cannot be known; where they agree it does not matter."""
    inputs.write_set(tmp_path, GOOD)
    inputs.write_set(tmp_path, {part: GOOD[part]}, name=NAMES["plain"])
    inputs.assert_equal(inputs.load(tmp_path), GOOD)
    assert caplog.messages == []
    inputs.write_set(tmp_path, {part: GOOD[part][::-1]}, name=NAMES["plain"])
    with pytest.raises(DataError, match="are both there and hold different data") as caught:
        inputs.load(tmp_path)
    stem = f"{part}-idx{GOOD[part].ndim}-ubyte"
    assert str(tmp_path / stem) in str(caught.value)
    assert str(tmp_path / f"{stem}.gz") in str(caught.value)


@pytest.mark.parametrize("present", [[], ["train_images.idx3", "notes.txt"]])
def test_nothing_that_matches_lists_what_was_looked_for_and_what_is_there(
    tmp_path: Path, present: list[str]
) -> None:
    """A person sees how the files must be called and what they are called now."""
    for name in present:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="Looked for train-images-idx") as caught:
        inputs.load(tmp_path)
    assert f"present: {', '.join(sorted(present)) or 'nothing'}" in str(caught.value)
