"""What Prefect's UI shows of a run: rows of tables, and pages in markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn import formatting
from cnn.compare import summary
from cnn.report.pages import markdown
from cnn.report.pages.page import title
from cnn.report.pages.thumbnails import fitting
from cnn.runs.records import REPORT_NAME, ComparedWith, GateDecision, RunRecord
from cnn.runs.searches import SearchRecord

Rows = list[dict[str, str]]


def metric_rows(headline: Mapping[str, Any]) -> Rows:
    """Return the accuracy of each split in words."""
    return [
        {
            "split": split,
            "accuracy": formatting.percent(headline[f"{split}_accuracy"]),
            "95 % interval": f"{formatting.percent(headline[f'{split}_accuracy_ci_low'])} to "
            f"{formatting.percent(headline[f'{split}_accuracy_ci_high'])}",
            "images": f"{headline[f'n_{split}']:,}",
        }
        for split in ("test", "validation")
        if f"{split}_accuracy" in headline
    ]


def step_rows(record: RunRecord) -> Rows:
    """Return what became of each step, why, and how long it took."""
    return [
        {
            "step": step.step,
            "outcome": step.state,
            "why": step.why,
            "time": formatting.seconds(step.seconds),
        }
        for step in record.steps
    ]


def gate_page(verdict: GateDecision) -> str:
    """Return the gate's decision and every check in markdown.

    No rows of a table: one of Prefect's UIs reads their cells as markdown, the other does not,
    and class names stand in them.
    """
    return "\n\n".join([_decision(verdict), markdown.table(gate_rows(verdict))])


def gate_rows(verdict: GateDecision) -> Rows:
    """Return every check with what was found and wanted; the decision where there was none."""
    checks = [
        {
            "check": check.name,
            "outcome": "passed" if check.passed else "failed",
            "found": check.found,
            "wanted": check.wanted,
        }
        for check in verdict.checks
    ]
    decision = {"check": "none", "outcome": verdict.outcome, "found": verdict.because, "wanted": ""}
    return checks or [decision]


def gate_words(verdict: GateDecision) -> str:
    """Return the gate's decision in a line."""
    return f"{verdict.outcome.capitalize()} on track {verdict.track}: {verdict.because}"


def pictures_page(record: RunRecord, folder: Path, pages: str, pictures: str) -> str:
    """Return the run's page: title, note, accuracy, the gate's decision, links, its pictures.

    pages: address at which the folder of runs is served, or "". pictures: markdown.
    """
    parts = [f"# {markdown.escaped(title(record))}", markdown.escaped(record.note)]
    parts += [_accuracy(record), _decision(record.gate), links(record, folder, pages), pictures]
    return "\n\n".join(filter(None, parts))


def comparison_page(found: ComparedWith, section: Mapping[str, Any] | None, figures: Path) -> str:
    """Return what differs from the promoted model, or why it was not compared, in markdown.

    section: of page.comparison_section. figures: the folder of the run's pictures.
    """
    title = f"Compared with the promoted model{f' of {found.run}' if found.run else ''}"
    head = f"# {markdown.escaped(title)}"
    if section is None:
        return f"{head}\n\n{markdown.escaped(f'It could not be compared: {found.problem}.')}"
    names = [summary.CHANGED_NAME] if section["rows"] else []
    names += [summary.picture_name(layer["name"]) for layer in section["layers"]]
    said = [
        section["accuracy"],
        section["predictions"],
        *(f"Filters of {layer['name']}: {layer['words']}" for layer in section["layers"]),
        *(f"{name} could not be compared: {why}" for name, why in section["left_out"].items()),
    ]
    pngs = {Path(name).stem: (figures / name).read_bytes() for name in names}
    shown = fitting(pngs, "the report has it")
    return "\n\n".join([head, *map(markdown.escaped, said), *shown])


def mined_page(record: SearchRecord, folder: Path) -> str:
    """Return the page of a search: what was searched, where it lies, its pictures."""
    head = f"# {markdown.escaped(record.layer)} of {markdown.escaped(record.run)}"
    said = f"{record.n_patches:,} patches in images of {record.data}; table and arrays: {folder}"
    pngs = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    shown = fitting(pngs, "it lies in that folder")
    return "\n\n".join([head, markdown.escaped(said), *shown])


def links(record: RunRecord, folder: Path, pages: str) -> str:
    """Return the links to the run's report and model, and to the promoted run's."""
    lines = [_linked("Report of this run", folder.name, REPORT_NAME, folder.parent, pages)]
    in_force = promoted_run(record)
    if in_force and record.gate:
        text = f"Promoted model of track {record.gate.track}, run {in_force}"
        lines.append(_linked(text, in_force, "model/model.keras", folder.parent, pages))
        if in_force != record.run:
            text = "Report of the promoted run"
            lines.append(_linked(text, in_force, REPORT_NAME, folder.parent, pages))
    return "\n".join(f"- {line}" for line in lines)


def promoted_run(record: RunRecord) -> str:
    """Return the run whose model is promoted after the gate's decision, or ""."""
    if record.gate is None:
        return ""
    return record.run if record.gate.outcome == "promoted" else record.gate.incumbent


def _linked(text: str, run: str, name: str, runs: Path, pages: str) -> str:
    """Return a link to a run's file, or its path where no pages are served."""
    if pages:
        return markdown.link(text, f"{pages.rstrip('/')}/{run}/{name}")
    return f"{markdown.escaped(text)}: {markdown.escaped(runs / run / name)}"


def _accuracy(record: RunRecord) -> str:
    figures = record.headline
    low, high = (
        formatting.percent(figures.get(f"test_accuracy_ci_{end}")) for end in ("low", "high")
    )
    return f"**Test accuracy {formatting.percent(figures.get('test_accuracy'))}** ({low} to {high})"


def _decision(verdict: GateDecision | None) -> str:
    if verdict is None:
        return ""
    return f"**Gate.** {markdown.escaped(gate_words(verdict))}"
