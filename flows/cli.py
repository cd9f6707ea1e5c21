"""The `filterscope` command."""

import dataclasses
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, get_args

from cyclopts import App, CycloptsError, Parameter

from cnn.commands import gc as collecting
from cnn.commands import verify as verifying
from cnn.config import run as settings
from cnn.config.run import MineConfig, RunConfig, StepName
from cnn.data import sources
from cnn.errors import ConfigError, FilterscopeError
from cnn.io import atomic
from cnn.pipeline import planning
from cnn.runs import folders, records, searches
from cnn.store.store import Store, default_root
from flows import console, prefect_settings, preflight
from flows.cli_options import MineWords, RunWords, merged

app = App(
    name="filterscope",
    version=lambda: version("filterscope"),
    help="Trains a small convolutional network, says how good it is, and shows what its filters "
    "look at.",
)

ConfigFile = Annotated[
    Path | None, Parameter(help="JSON file of settings; options given here rule over it")
]
StoreRoot = Annotated[
    Path | None,
    Parameter(help="root of the artifact store; default FILTERSCOPE_STORE or ./artifacts"),
]
Refresh = Annotated[
    tuple[str, ...],
    Parameter(
        help=f"step to run although it is cached: {', '.join(get_args(StepName))}",
        negative=(),
        consume_multiple=False,
    ),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="print JSON")]
Apply = Annotated[
    bool, Parameter(negative=(), help="remove it; without this, gc only says what it would do")
]
AllWords = Annotated[RunWords, Parameter(name="*", show_default=False)]
MineWordsGiven = Annotated[MineWords, Parameter(name="*", show_default=False)]


@app.command
def run(
    *,
    config: ConfigFile = None,
    store: StoreRoot = None,
    refresh: Refresh = (),
    json: AsJson = False,
    words: AllWords = RunWords(),
) -> None:
    """Train, measure and explain; what is in the store already is not done again."""
    wanted, names, root = _read(config, words), _steps(refresh), Store(store or default_root())
    root.ensure_writable()
    preflight.refuse_missing_gpu(wanted.runtime)
    data, note = preflight.resolve_auto(wanted.data, root)
    chosen = wanted.model_copy(update={"data": data})
    planned = planning.plan(root, chosen, names)
    with preflight.without_warnings():  # the run repeats them in its log
        preflight.refuse_bad_data(chosen, planned, root)
    there = preflight.nothing_to_do(root, chosen, planned)
    if there:
        console.tell("nothing to do: every step is in the store, verified, as this run made it")
        record, folder = there
    else:
        from flows import local_run

        folder = local_run.train_and_explain(chosen, root.root, names, note)
        record = records.read(folder)
    if json:
        console.as_json(record.model_dump(mode="json"))
    else:
        console.run(record, folder)


@app.command
def plan(
    *,
    config: ConfigFile = None,
    store: StoreRoot = None,
    refresh: Refresh = (),
    json: AsJson = False,
    words: AllWords = RunWords(),
) -> None:
    """Say which steps are cached, which would run, and why; nothing is run or changed."""
    wanted, names, root = _read(config, words), _steps(refresh), Store(store or default_root())
    chosen, note = sources.guess_auto(wanted.data, root.downloads)
    settled = wanted.model_copy(update={"data": chosen})
    planned = planning.plan(root, settled, names)
    preflight.refuse_bad_data(settled, planned, root)
    rows = [(item.step.name, item.state, item.why) for item in planned]
    if json:
        console.as_json([dict(zip(("step", "state", "why"), row, strict=True)) for row in rows])
    else:
        console.table(("step", "state", "why"), rows, note)


@app.command
def mine(
    *,
    config: ConfigFile = None,
    store: StoreRoot = None,
    json: AsJson = False,
    words: MineWordsGiven = MineWords(),
) -> None:
    """Show which patches most activate the filters of one layer, in any images."""
    values = settings.read_file(config) if config else {}
    wanted = settings.validated(merged(values, words), MineConfig)
    root = Store(store or default_root())
    root.ensure_writable()
    records.find(root.runs, wanted.run)
    if wanted.data:
        data, _ = preflight.resolve_auto(wanted.data, root)
        wanted = wanted.model_copy(update={"data": data})
    preflight.refuse_missing_gpu(wanted.runtime)
    from flows import local_run

    folder = local_run.mine(wanted, root.root)
    if json:
        console.as_json(searches.read(folder).model_dump(mode="json"))
    else:
        console.found(searches.read(folder), folder)


@app.command
def verify(*, store: StoreRoot = None, json: AsJson = False) -> None:
    """Hash everything in the store anew and say what is broken; ends with 1 if anything is."""
    with console.progress("verify") as report:
        found = verifying.verify(Store(store or default_root()), report)
    if json:
        console.as_json(dataclasses.asdict(found))
    else:
        console.verified(found)
    sys.exit(1 if found.broken else 0)


@app.command
def gc(
    *,
    apply: Apply = False,
    keep: Annotated[str, Parameter(help="how many of the last runs are kept")] = "10",
    store: StoreRoot = None,
    json: AsJson = False,
) -> None:
    """Say what no run needs any more, and why; with --apply, remove it.

    Kept are promoted and pinned runs, the last ones, completed and failed, and what they
    were made from; also what a run or a training under way needs, and what is younger
    than an hour. Downloads stay.
    """
    root, n_last = Store(store or default_root()), _count(keep)
    free = atomic.free_bytes(root.root)
    found = (collecting.collect if apply else collecting.survey)(root, n_last)
    if json:
        console.as_json(
            {
                **dataclasses.asdict(found),
                "applied": apply,
                "free_bytes_before": free,
                "free_bytes": atomic.free_bytes(root.root),
            }
        )
    else:
        console.collected(found, apply, free, atomic.free_bytes(root.root))


@app.command
def pin(run: str = "latest", /, *, store: StoreRoot = None) -> None:
    """Have gc keep a run, with what it was made from; RUN is named as for show."""
    folder = folders.pin(Store(store or default_root()).runs, run)
    console.tell(f"{folder.name} is pinned: gc keeps it and what it was made from")


@app.command
def unpin(run: str, /, *, store: StoreRoot = None) -> None:
    """Let gc free a run again."""
    folder = folders.unpin(Store(store or default_root()).runs, run)
    console.tell(f"{folder.name} is not pinned")


@app.command
def promote(
    run: str,
    /,
    *,
    because: Annotated[str, Parameter(help="why; it stands in the history")],
    track: Annotated[
        str | None, Parameter(help="where to promote it; default the one it was judged on")
    ] = None,
    store: StoreRoot = None,
) -> None:
    """Put a run in force whatever the gate said of it: a better one, or an earlier one again."""
    from cnn.commands import promote as by_hand

    chosen = settings.validate({"gate": {"track": track}}).gate.track
    record, place = by_hand.promote(Store(store or default_root()), run, because, chosen)
    console.tell(f"{record.run} is promoted on track {place}")


@app.command(name="runs")
def list_runs(*, store: StoreRoot = None, json: AsJson = False) -> None:
    """List all runs, oldest first."""
    root = Store(store or default_root()).runs
    found = [(record, folders.is_pinned(root / record.run)) for record in records.read_all(root)]
    if json:
        console.as_json([{**item.model_dump(mode="json"), "pinned": pin} for item, pin in found])
    else:
        console.all_runs(found)


@app.command
def show(run: str = "latest", /, *, store: StoreRoot = None, json: AsJson = False) -> None:
    """Show one run: its full name, the beginning or end of it, or "latest"."""
    record, folder = records.find(Store(store or default_root()).runs, run)
    if json:
        pinned = folders.is_pinned(folder)
        console.as_json({**record.model_dump(mode="json"), "pinned": pinned})
    else:
        console.run(record, folder)


@app.command
def compare(before: str, after: str, /, *, store: StoreRoot = None, json: AsJson = False) -> None:
    """Say what became of the filters and the predictions of one run in another.

    Runs are named as for show. Both models are asked about the second run's test images;
    tables and pictures of the filters side by side are put in the store's folder `compared`.
    """
    from cnn.commands import compare as comparing

    with console.progress("compare") as report:
        root = Store(store or default_root())
        folder, told = comparing.compare(root, (before, after), report)
    if json:
        console.as_json({**told, "folder": folder})
    else:
        console.comparison(folder, told)


@app.command
def doctor(*, store: StoreRoot = None, json: AsJson = False) -> None:
    """Look at versions, device, data sources, Prefect's API and the store."""
    from cnn.commands import doctor as looking

    prefect_settings.apply()
    api = looking.Check("prefect api", *prefect_settings.api_state())
    found = [*looking.checks(Store(store or default_root())), api]
    if json:
        console.as_json([vars(check) for check in found])
    else:
        rows = [("ok" if check.ok else "look", check.name, check.detail) for check in found]
        console.table(("", "what", "found"), rows)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command; errors end it with a line and an exit code, not with a traceback."""
    try:
        app(sys.argv[1:] if words is None else words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _end(f"{error} Try filterscope --help.", ConfigError.exit_code)
    except FilterscopeError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def _end(message: str, exit_code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _read(file: Path | None, words: object) -> RunConfig:
    values = settings.read_file(file) if file else {}
    asked = settings.validate(merged(values, words))  # type: ignore[arg-type]
    return settings.dated(asked, datetime.now(UTC))


def _steps(names: tuple[str, ...]) -> list[StepName]:
    known = get_args(StepName)
    for name in names:
        if name not in known:
            raise ConfigError(f"--refresh {name}: no such step; steps are {', '.join(known)}")
    return list(names)  # type: ignore[arg-type]


def _count(word: str) -> int:
    if not word.isdecimal():
        raise ConfigError(f"--keep: {word!r} is refused; expected a whole number >= 0")
    return int(word)
