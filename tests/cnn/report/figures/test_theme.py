"""The common look: text that fits, and figures without a display or global state."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnn.report.figures import overview, theme
from cnn.report.pages.body import Material
from cnn.store.refs import Kind
from tests.cnn.report.helpers import drawn, lines

LONG = "Übergröße – sehr lange Klasse mit_vielen_Wörtern im Namen " * 10


@pytest.mark.parametrize("name", [LONG, LONG.replace(" ", "_")])
@pytest.mark.parametrize("room", [60, 110, 500])
def test_a_long_text_is_wrapped_to_lines_that_fit(name: str, room: int) -> None:
    """Only the last line is shortened, in its middle."""
    wrapped = theme.wrapped(name, room, theme.SMALL, 4)
    assert len(wrapped) == 4
    assert max(theme.text_width(line, theme.SMALL) for line in wrapped) <= room
    squeezed = re.sub(r"\s", "", name)
    start = re.sub(r"\s", "", "".join(wrapped[:3]))
    assert squeezed.startswith(start)
    first, last = wrapped[3].split("…")
    assert squeezed[len(start) :].startswith(re.sub(r"\s", "", first))
    assert name.endswith(last)


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("", [""]),
        ("7", ["7"]),
        ("Pullover", ["Pullover"]),
        ("Größe", ["Größe"]),
        ("Ankle boot", ["Ankle", "boot"]),
        ("T-shirt/top", ["T-shirt/", "top"]),
        ("long-sleeve_shirt", ["long-", "sleeve_", "shirt"]),
    ],
)
def test_lines_break_at_a_space_or_after_a_mark(text: str, wrapped: list[str]) -> None:
    """A caption is broken between words; one that fits stays on one line."""
    assert list(theme.wrapped(text, 75, theme.SMALL, 3)) == wrapped


def test_a_class_is_written_by_its_number_if_the_font_lacks_a_letter(material: Material) -> None:
    """matplotlib would draw boxes, and its warning would be an error here."""
    figure = overview.samples(material.dataset.splits["train"], (*"012345678", "九"))
    drawn(figure)
    assert {"class 9", "8"} < set(lines(figure))


# Writes reports in four threads, and prints what they leave behind in the process.
SCRIPT = """
import hashlib, json, os, pathlib, resource, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
import matplotlib
state = lambda: (matplotlib.rcParams._get_backend_or_none(), dict(matplotlib.rcParams.copy()))
before = state()
from cnn.report.pages import body
material = body.gather({kind: pathlib.Path(path) for kind, path in json.loads(sys.argv[1]).items()})
progress = []
def memory():
    n_pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return n_pages * resource.getpagesize()
def write(i):
    with tempfile.TemporaryDirectory() as folder:
        report = lambda now: progress.append((now.done, now.total))
        body.write(pathlib.Path(folder), material, 24, report)
        paths = sorted(pathlib.Path(folder).iterdir())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
with ThreadPoolExecutor(4) as pool:
    written = list(pool.map(write, range(4)))
    first = memory()
    written += pool.map(write, range(4, int(sys.argv[2])))
modules = [name for name in sys.modules if name.startswith(("matplotlib.pyplot", "tkinter"))]
modules += [name for name in ("tensorflow", "keras", "prefect") if name in sys.modules]
print(json.dumps({"written": written, "modules": modules, "unchanged": before == state(),
                  "progress": sorted(progress), "growth": memory() - first}))
"""


# Sources of the odd surroundings: matplotlib#15358, Akkudoktor-EOS#375, MetOffice/CSET#481.
@pytest.mark.parametrize("n_reports", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_four_threads_without_a_display_draw_the_same_bytes(
    artifacts: dict[Kind, Path], report: Path, n_reports: int
) -> None:
    """Tk is the backend, but no window opens and no setting changes; memory does not grow.

    After 10 reports, it is less than 100 MB above that after 4.
    """
    environment = {**os.environ, "MPLBACKEND": "TkAgg"}
    environment.pop("DISPLAY", None)
    folders = json.dumps({kind: str(path) for kind, path in artifacts.items()})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, folders, str(n_reports)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["modules"], result["unchanged"]) == ([], True)
    assert result["progress"] == [[i, 13] for i in range(1, 14) for _ in range(n_reports)]
    assert result["growth"] < 100 << 20
    alone = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in report.iterdir()}
    assert result["written"] == [alone] * n_reports
