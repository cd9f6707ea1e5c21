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

ConfigFile = Annotated[Path | None, Parameter(help="JSON file of settings; options override it")]
StoreRoot = Annotated[
    Path | None,
    Parameter(help="root of the artifact store; default FILTERSCOPE_STORE or ./artifacts"),
]
Refresh = Annotated[
    tuple[str, ...],
    Parameter(
        help=f"step to run even if it is cached: {', '.join(get_args(StepName))}",
        negative=(),
        consume_multiple=False,
    ),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="print JSON")]
Apply = Annotated[
    bool, Parameter(negative=(), help="remove them; without this, gc only lists them")
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
    """Train, evaluate and explain; steps whose results are in the store do not run again."""
    given, names, root = _read(config, words), _steps(refresh), Store(store or default_root())
    root.ensure_writable()
    preflight.refuse_missing_gpu(given.runtime)
    data, note = preflight.resolve_auto(given.data, root)
    resolved = given.model_copy(update={"data": data})
    planned = planning.plan(root, resolved, names)
    with preflight.without_warnings():  # the run repeats them in its log
        preflight.refuse_bad_data(resolved, planned, root)
    earlier = preflight.nothing_to_do(root, resolved, planned)
    if earlier:
        console.tell("nothing to do: every step is in the store, verified, from this run:")
        record, folder = earlier
    else:
        from flows import local_run

        folder = local_run.train_and_explain(resolved, root.root, names, note)
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
    """Show which steps are cached, which would run, and why; this changes nothing."""
    given, names, root = _read(config, words), _steps(refresh), Store(store or default_root())
    data, note = sources.guess_auto(given.data, root.downloads)
    resolved = given.model_copy(update={"data": data})
    planned = planning.plan(root, resolved, names)
    preflight.refuse_bad_data(resolved, planned, root)
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
    search = settings.validated(merged(values, words), MineConfig)
    root = Store(store or default_root())
    root.ensure_writable()
    records.find(root.runs, search.run)
    if search.data:
        data, _ = preflight.resolve_auto(search.data, root)
        search = search.model_copy(update={"data": data})
    preflight.refuse_missing_gpu(search.runtime)
    from flows import local_run

    folder = local_run.mine(search, root.root)
    if json:
        console.as_json(searches.read(folder).model_dump(mode="json"))
    else:
        console.found(searches.read(folder), folder)


@app.command
def verify(*, store: StoreRoot = None, json: AsJson = False) -> None:
    """Hash every file in the store and list what is broken; the exit code is 1 if anything is."""
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
    keep: Annotated[str, Parameter(help="how many of the last runs to keep")] = "10",
    store: StoreRoot = None,
    json: AsJson = False,
) -> None:
    """List files that no run needs any more, and why; with --apply, remove them.

    Promoted runs, pinned runs and the last runs, completed and failed, are kept with
    everything they were made from. So are files that a run or a training in progress
    needs, files younger than an hour, and downloads.
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
    """Make gc keep a run and everything it was made from; RUN is named as for show."""
    folder = folders.pin(Store(store or default_root()).runs, run)
    console.tell(f"{folder.name} is pinned: gc keeps it and what it was made from")


@app.command
def unpin(run: str, /, *, store: StoreRoot = None) -> None:
    """Let gc remove a run again."""
    folder = folders.unpin(Store(store or default_root()).runs, run)
    console.tell(f"{folder.name} is not pinned")


@app.command
def promote(
    run: str,
    /,
    *,
    because: Annotated[str, Parameter(help="the reason, for the history of promotions")],
    track: Annotated[
        str | None, Parameter(help="track to promote it on; default the one its gate used")
    ] = None,
    store: StoreRoot = None,
) -> None:
    """Promote a run whatever its gate decided: a better one, or an earlier one again."""
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
    """Show one run, given its full name, the beginning or end of its name, or "latest"."""
    record, folder = records.find(Store(store or default_root()).runs, run)
    if json:
        pinned = folders.is_pinned(folder)
        console.as_json({**record.model_dump(mode="json"), "pinned": pinned})
    else:
        console.run(record, folder)


@app.command
def compare(before: str, after: str, /, *, store: StoreRoot = None, json: AsJson = False) -> None:
    """Compare the filters and the predictions of two runs.

    Runs are named as for show. Both models predict the second run's test images. Tables and
    figures of the matched filters are written to the store's folder `compared`.
    """
    from cnn.commands import compare as comparing

    with console.progress("compare") as report:
        root = Store(store or default_root())
        folder, comparison = comparing.compare(root, (before, after), report)
    if json:
        console.as_json({**comparison, "folder": folder})
    else:
        console.comparison(folder, comparison)


@app.command
def doctor(*, store: StoreRoot = None, json: AsJson = False) -> None:
    """Check versions, device, data sources, Prefect's API and the store."""
    from cnn.commands import doctor as checking

    prefect_settings.apply()
    api = checking.Check("prefect api", *prefect_settings.api_state())
    checks = [*checking.checks(Store(store or default_root())), api]
    if json:
        console.as_json([vars(check) for check in checks])
    else:
        rows = [("ok" if check.ok else "check", check.name, check.detail) for check in checks]
        console.table(("", "what", "found"), rows)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command; on an error, print one line without a traceback and set the exit code."""
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
    config = settings.validate(merged(values, words))  # type: ignore[arg-type]
    return settings.dated(config, datetime.now(UTC))


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
