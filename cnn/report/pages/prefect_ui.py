"""What Prefect's UI shows of a run: table rows, and pages in markdown."""

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
    """Return a row with the accuracy of each split."""
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
    """Return a row for each step: its outcome, why, and how long it took."""
    return [
        {
            "step": step.step,
            "outcome": step.state,
            "why": step.why,
            "time": formatting.seconds(step.seconds),
        }
        for step in record.steps
    ]


def gate_page(decision: GateDecision) -> str:
    """Return the gate's decision and every check in markdown.

    It is not a table artifact, because the cells contain class names and only one of Prefect's
    two UIs reads such cells as markdown.
    """
    return "\n\n".join([_decision(decision), markdown.table(gate_rows(decision))])


def gate_rows(decision: GateDecision) -> Rows:
    """Return every check with the value found and the limit; the decision if there is no check."""
    checks = [
        {
            "check": check.name,
            "outcome": "passed" if check.passed else "failed",
            "found": check.found,
            "required": check.wanted,
        }
        for check in decision.checks
    ]
    alone = {
        "check": "none",
        "outcome": decision.outcome,
        "found": decision.because,
        "required": "",
    }
    return checks or [alone]


def gate_words(decision: GateDecision) -> str:
    """Return the gate's decision in one line."""
    return f"{decision.outcome.capitalize()} on track {decision.track}: {decision.because}"


def pictures_page(record: RunRecord, folder: Path, pages: str, pictures: str) -> str:
    """Return the run's page: title, note, accuracy, the gate's decision, links and figures.

    pages: the URL at which the folder of runs is served, or "". pictures: the figures in markdown.
    """
    parts = [f"# {markdown.escaped(title(record))}", markdown.escaped(record.note)]
    parts += [_accuracy(record), _decision(record.gate), links(record, folder, pages), pictures]
    return "\n\n".join(filter(None, parts))


def comparison_page(
    compared: ComparedWith, section: Mapping[str, Any] | None, figures: Path
) -> str:
    """Return what differs from the promoted model, or why the comparison failed, in markdown.

    section: from page.comparison_section. figures: the folder of the run's figures.
    """
    title = f"Compared with the promoted model{f' of {compared.run}' if compared.run else ''}"
    head = f"# {markdown.escaped(title)}"
    if section is None:
        return f"{head}\n\n{markdown.escaped(f'It could not be compared: {compared.problem}.')}"
    names = [summary.CHANGED_NAME] if section["rows"] else []
    names += [summary.picture_name(layer["name"]) for layer in section["layers"]]
    lines = [
        section["accuracy"],
        section["predictions"],
        *(f"Filters of {layer['name']}: {layer['words']}" for layer in section["layers"]),
        *(f"{name} could not be compared: {why}" for name, why in section["left_out"].items()),
    ]
    pngs = {Path(name).stem: (figures / name).read_bytes() for name in names}
    shown = fitting(pngs, "the report")
    return "\n\n".join([head, *map(markdown.escaped, lines), *shown])


def mined_page(record: SearchRecord, folder: Path) -> str:
    """Return the page of a search: what was searched, where the results are, and the figures."""
    head = f"# {markdown.escaped(record.layer)} of {markdown.escaped(record.run)}"
    line = f"{record.n_patches:,} patches in images of {record.data}; table and arrays in {folder}"
    pngs = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    shown = fitting(pngs, "that folder")
    return "\n\n".join([head, markdown.escaped(line), *shown])


def links(record: RunRecord, folder: Path, pages: str) -> str:
    """Return links to the run's report, and to the model and report of the promoted run."""
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
    """Return the run whose model is the promoted one after the gate's decision, or ""."""
    if record.gate is None:
        return ""
    return record.run if record.gate.outcome == "promoted" else record.gate.incumbent


def _linked(text: str, run: str, name: str, runs: Path, pages: str) -> str:
    """Return a link to a run's file, or its path if no pages are served."""
    if pages:
        return markdown.link(text, f"{pages.rstrip('/')}/{run}/{name}")
    return f"{markdown.escaped(text)}: {markdown.escaped(runs / run / name)}"


def _accuracy(record: RunRecord) -> str:
    figures = record.headline
    low, high = (
        formatting.percent(figures.get(f"test_accuracy_ci_{end}")) for end in ("low", "high")
    )
    return f"**Test accuracy {formatting.percent(figures.get('test_accuracy'))}** ({low} to {high})"


def _decision(decision: GateDecision | None) -> str:
    if decision is None:
        return ""
    return f"**Gate.** {markdown.escaped(gate_words(decision))}"
