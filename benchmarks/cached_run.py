"""The cost of a fully cached run, compared with the least that the tools themselves cost.

    python -m benchmarks.cached_run MNIST_FOLDER [--dvc PATH] [--rounds 5]

With a Prefect server: the wall time of `filterscope run` with every step cached, divided by that of
a flow with one empty task. Without one: divided by that of `dvc repro` on five unchanged stages, if
a dvc is given. Pairs alternate; each ratio is printed as median (smallest to largest).
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
HELLO = """
from prefect import flow, task

@task
def hello():
    return "hello"

@flow
def world():
    return hello()

world()
"""
IMPORTED = """
import sys
from flows import cli
cli.main(sys.argv[1:])
heavy = {"tensorflow", "keras", "pandas", "matplotlib", "prefect"}
print("imported:", sorted(heavy & {*sys.modules}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--dvc", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        plain = _environment(place)
        words = ["--data.source", "folder", "--data.path", str(options.mnist.absolute())]
        ours = [str(BIN / "filterscope"), "run", *words, "--store", str(place / "artifacts")]
        _seconds(ours, plain, place)
        time.sleep(3)  # digests of files younger than two seconds are not remembered
        _seconds(ours, plain, place)
        with _server(place, plain) as served:
            hello = [sys.executable, "-c", HELLO]
            _seconds(hello, served, place)
            _seconds(ours, served, place)
            pairs = [
                (_seconds(ours, served, place), _seconds(hello, served, place))
                for _ in range(options.rounds)
            ]
            _print("with a server, over a flow with one empty task", pairs)
            _imported(ours, served, place)
        if options.dvc:
            repro = [str(options.dvc.absolute()), "repro"]
            stages = _stages(place / "dvc", options.dvc, plain)
            pairs = [
                (_seconds(ours, plain, place), _seconds(repro, plain, stages))
                for _ in range(options.rounds)
            ]
            _print("without a server, over dvc repro on five unchanged stages", pairs)
        _imported(ours, plain, place)


def _environment(place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(place / "prefect"), "DVC_NO_ANALYTICS": "1"}


def _seconds(command: list[str], environment: dict[str, str], folder: Path) -> float:
    started = time.monotonic()
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - started


def _print(what: str, pairs: list[tuple[float, float]]) -> None:
    ratios = [ours / theirs for ours, theirs in pairs]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{what}: ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"{ours:.2f} s over {theirs:.2f} s"
    )


def _imported(ours: list[str], environment: dict[str, str], folder: Path) -> None:
    command = [sys.executable, "-c", IMPORTED, *ours[1:]]
    done = subprocess.run(
        command, env=environment, cwd=folder, check=True, capture_output=True, text=True
    )
    print(done.stdout.splitlines()[-1])


def _stages(folder: Path, dvc: Path, environment: dict[str, str]) -> Path:
    """Return a folder with five dvc stages that have run, each copying the file before."""
    folder.mkdir()
    (folder / "0.bin").write_bytes(os.urandom(10 << 20))
    lines = ["stages:"]
    for i in range(5):
        lines += [
            f"  copy{i}:",
            f"    cmd: cp {i}.bin {i + 1}.bin",
            f"    deps: [{i}.bin]",
            f"    outs: [{i + 1}.bin]",
        ]
    (folder / "dvc.yaml").write_text("\n".join(lines), encoding="utf-8")
    for words in (["init", "--no-scm"], ["repro"]):
        _seconds([str(dvc.absolute()), *words], environment, folder)
    return folder


@contextmanager
def _server(place: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a Prefect server and yield the environment that reaches it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = [str(BIN / "prefect"), "server", "start", "--port", str(port)]
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=place, stdout=log, stderr=log)
    try:
        while True:
            try:
                if httpx.get(f"{url}/health").is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield environment | {"PREFECT_API_URL": url}
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
