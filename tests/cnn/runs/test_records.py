"""Names of run folders, and how a run is found by name or by its artifacts."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnn.errors import ConfigError
from cnn.runs import folders, records
from cnn.runs.records import StepOutcome
from cnn.store.refs import Ref
from tests.cnn.runs.published import CREATED, publish, record


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits-fast-seed0", "digits-fast-seed0"),
        ("../../etc/passwd", "etc-passwd"),
        ("a/b\\c", "a-b-c"),
        (".hidden", "hidden"),
        ("my data: März", "my-data-M-rz"),
        ("", "run"),
        ("..", "run"),
        ("x" * 500, "x" * 80),
    ],
)
def test_a_folder_name_is_the_time_and_a_safe_name(name: str, expected: str) -> None:
    """Names sort by time."""
    assert records.folder_name(CREATED, name) == f"20260301T123045Z-{expected}"


@given(st.text())
@example("../\0 \n")
def test_no_name_leads_out_of_the_runs_folder(name: str) -> None:
    """A folder name is always one visible part of a path, in ASCII."""
    folder = records.folder_name(CREATED, name)
    assert Path(folder).name.encode("ascii").startswith(b"20260301T123045Z-")
    assert set(folder).isdisjoint("/\\\0 \n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20260301T123045Z-digits-fast-seed0", "20260301T123045Z-digits-fast-seed0"),
        ("20260301T123145Z", "20260301T123145Z-mnist-best-seed1"),
        ("best-seed1", "20260301T123145Z-mnist-best-seed1"),
        ("seed0-2", "20260301T123045Z-digits-fast-seed0-2"),
        ("latest", "20260301T123145Z-mnist-best-seed1"),
    ],
)
def test_a_run_is_found_by_name_beginning_end_or_as_the_latest(
    tmp_path: Path, name: str, expected: str
) -> None:
    """A full name finds that run even if another name begins with it."""
    for item in (record("mnist-best-seed1", seconds=60), record(), record()):
        publish(tmp_path, item)
    found, folder = records.find(tmp_path, name)
    assert found.run == expected
    assert records.read(folder) == found


@pytest.mark.parametrize(
    "created",
    [
        {"mnist-fast-seed1": [0.1], "digits-fast-seed0": [0.2]},
        {"digits-fast-seed0": [i / 100 for i in range(11)]},
    ],
)
def test_the_latest_run_is_the_newest_within_a_second_too(
    tmp_path: Path, created: dict[str, list[float]]
) -> None:
    """Not the last by name, and the tenth run of a name comes after the second."""
    runs = [
        publish(tmp_path, record(name, at)).run for name, times in created.items() for at in times
    ]
    assert records.find(tmp_path, "latest")[0].run == runs[-1]


@pytest.mark.parametrize(
    ("n_runs", "name", "message"),
    [
        (2, "seed", r"no run of that name in .*; there are 20260301T123045Z-a-seed0, 2026"),
        (2, "20260301", r"several runs match in .*; there are 20260301T123045Z-a-seed0, 2026"),
        (2, "../etc", "no run of that name"),
        (0, "latest", "run 'latest': no run .*; there are none"),
        (0, "x", "run 'x': no run .*; there are none"),
    ],
)
def test_a_name_that_matches_no_run_or_several_is_refused(
    tmp_path: Path, n_runs: int, name: str, message: str
) -> None:
    """The message lists the names of the runs."""
    for item in (record("a-seed0"), record("b-seed1"))[:n_runs]:
        publish(tmp_path / "runs", item)
    with pytest.raises(ConfigError, match=message):
        records.find(tmp_path / "runs", name)


def test_the_latest_run_of_some_artifacts_is_found_whatever_it_was_compared_with(
    tmp_path: Path,
) -> None:
    """A comparison depends on what was promoted, so it does not count."""
    report, comparison, other = (
        Ref(kind=kind, key=letter * 64, digest=letter * 64)
        for kind, letter in (("report", "a"), ("comparison", "b"), ("report", "c"))
    )
    steps = tuple(
        StepOutcome(step=ref.kind, state="ran", why="new", seconds=1, ref=ref)
        for ref in (report, comparison)
    )
    item, folder = folders.publish(tmp_path, record(steps=steps), {}, "<p>report</p>")
    assert records.latest_of(tmp_path, [report]) == (item, folder)
    assert records.latest_of(tmp_path, [other]) is None
