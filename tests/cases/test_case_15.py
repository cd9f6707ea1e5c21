"""Case 15: figures without a display, in threads, by the hundred.

Sources: matplotlib/matplotlib#15358; Akkudoktor-EOS/EOS#375; MetOffice/CSET#481.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import ROOT

pytestmark = pytest.mark.slow


# Draws every kind of figure again and again in four threads; prints what a caller may notice.
SCRIPT = """
import json, resource, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import matplotlib
before = (matplotlib.rcParams._get_backend_or_none(), dict(matplotlib.rcParams.copy()))
import numpy as np
import pandas as pd
from tests import ROOT
from cnn.data.dataset import Split
from cnn.report.figures import overview
from cnn.report.figures import layers
from cnn.report.figures import theme
from cnn.report.figures.layers import ExplainedLayer

folder, n_figures = Path(sys.argv[1]), 200

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

def filters(rng):
    kernels = rng.normal(size=(25, 5, 5, 1)).astype(np.float32)
    rows = [{"filter": f, "dead": rng.random() < 0.1} for f in range(25)]
    pixels = np.zeros((25, 12, 5, 5, 1), np.uint8)
    return layers.filters(ExplainedLayer("conv1", rows, kernels, pixels, pixels, [], ()))

def history(rng):
    steps = np.arange(10, 200, 10)
    rows = [
        {"step": s, "split": split, "accuracy": 1 - 1 / s, "loss": rng.random() * 10.0 ** -(s / 50),
         "learning_rate": 1e-3, "status": "ok"}
        for s in steps for split in ("train", "validation")
    ]
    return overview.history(pd.DataFrame(rows))

def calibration(rng):
    edges = np.linspace(0, 1, 16)
    n = rng.integers(1, 5000, 15)
    table = pd.DataFrame({
        "split": "test", "n": n, "mean_probability": (edges[1:] + edges[:-1]) / 2,
        "accuracy": (edges[1:] + edges[:-1]) / 2, "ci_low": edges[:-1], "ci_high": edges[1:],
        "probability_low": edges[:-1], "probability_high": edges[1:],
    })
    return overview.calibration(table, "test")

def samples(rng):
    images = rng.integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    split = Split(images, rng.integers(0, 10, 20), np.arange(20))
    return overview.samples(split, tuple("0123456789"))

KINDS = (filters, history, calibration, samples)
sizes, lock = [], threading.Lock()

def draw(i):
    theme.save(KINDS[i % 4](np.random.default_rng(i)), folder / f"{i:03}.png")
    with lock:
        sizes.append(resident())

with ThreadPoolExecutor(4) as pool:
    list(pool.map(draw, range(n_figures)))
after = (matplotlib.rcParams._get_backend_or_none(), dict(matplotlib.rcParams.copy()))
print(json.dumps({
    "pyplot": "matplotlib.pyplot" in sys.modules,
    "tkinter": "tkinter" in sys.modules,
    "unchanged": before == after,
    "grown": sizes[-1] - sizes[19],
}))
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """The folder of 200 figures, and what their drawing left behind."""
    folder = tmp_path_factory.mktemp("figures")
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, folder],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**environment, "MPLBACKEND": "TkAgg"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder, json.loads(done.stdout)


def test_every_figure_is_a_whole_picture(drawn: tuple[Path, dict[str, object]]) -> None:
    """Two hundred valid PNGs, and the same picture whichever thread drew it."""
    paths = sorted(drawn[0].glob("*.png"))
    assert len(paths) == 200
    for path in paths:
        with Image.open(path) as picture:
            picture.load()
            assert picture.width == 1040
            assert picture.convert("L").getextrema()[0] < 100


def test_drawing_changes_nothing_of_the_callers(drawn: tuple[Path, dict[str, object]]) -> None:
    """No pyplot, no window toolkit; backend and rcParams are as they were."""
    assert {name: drawn[1][name] for name in ("pyplot", "tkinter", "unchanged")} == {
        "pyplot": False,
        "tkinter": False,
        "unchanged": True,
    }


def test_the_memory_does_not_grow_with_the_figures(drawn: tuple[Path, dict[str, object]]) -> None:
    """After 200 figures it is not 100 MB more than after 20."""
    grown = drawn[1]["grown"]
    assert isinstance(grown, int)
    assert grown < 100 << 20


def test_one_seed_gives_one_picture_in_any_thread(
    drawn: tuple[Path, dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What four threads drew at once equals what one thread draws alone."""
    folder = tmp_path_factory.mktemp("alone")
    alone = SCRIPT.replace("ThreadPoolExecutor(4)", "ThreadPoolExecutor(1)")
    alone = alone.replace("n_figures = Path(sys.argv[1]), 200", "n_figures = Path(sys.argv[1]), 24")
    subprocess.run([sys.executable, "-c", alone, folder], check=True, cwd=ROOT, capture_output=True)
    for path in sorted(folder.glob("*.png")):
        assert path.read_bytes() == (drawn[0] / path.name).read_bytes()
