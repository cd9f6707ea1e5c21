"""The work of a first run as a bare script: the same arithmetic, files and checks of the gate.

No Prefect, no store, no keys, nothing side by side.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.peers import ours
from cnn.config.run import GateConfig, MiningConfig, ReportConfig, RuntimeConfig
from cnn.data import dataset as datasets
from cnn.evaluate import evaluation
from cnn.explain import filters, patches
from cnn.model_io import exports
from cnn.promotion import candidate as candidates
from cnn.report.pages import body
from cnn.store.refs import Kind, Ref
from cnn.tables import parquet
from cnn.train import device, fit

_KINDS: tuple[Kind, ...] = ("dataset", "model", "evaluation", "filters", "patches", "report")


def main(root: Path) -> None:
    """Load, train `spec`, evaluate, export, mine, draw and judge, below a new folder."""
    folders: dict[Kind, Path] = {kind: root / kind for kind in _KINDS}
    for folder in folders.values():
        folder.mkdir(parents=True)
    where = device.prepare(RuntimeConfig())
    datasets.write(folders["dataset"], ours.dataset())
    data = datasets.read(folders["dataset"])

    settings = ours.changed("spec", {})
    fitted = fit.fit(data, settings, 0)
    exports.save_model(folders["model"], fitted.model, data)
    on = {"device": where.kind, "device_name": where.name, "precision": settings.precision}
    history = [asdict(point) | on for point in fitted.history]
    parquet.write_rows(folders["model"] / "history.parquet", "history", history)
    trained = {"seed": 0, **settings.model_dump()}
    (folders["model"] / "training.json").write_text(json.dumps(trained), encoding="utf-8")

    model = exports.load_model(folders["model"])
    measured = evaluation.evaluate(model, data, calibration_bins=15)
    for name, rows in measured.tables.items():
        parquet.write_rows(folders["evaluation"] / f"{name}.parquet", name, rows)
    described = [filters.describe(model, layer, data) for layer in filters.LAYERS]
    for item in described:
        np.save(folders["filters"] / f"filters-{item.layer}.npy", item.kernels)
    rows = [row for item in described for row in item.rows]
    parquet.write_rows(folders["filters"] / "filters.parquet", "filters", rows)
    mined = [
        patches.mine(model, data, MiningConfig(layer=layer), data.class_names)
        for layer in patches.LAYERS
    ]
    for item in mined:
        np.save(folders["patches"] / f"patches-{item.layer}.npy", item.pixels)
        np.save(folders["patches"] / f"projections-{item.layer}.npy", item.projections)
    rows = [row for item in mined for row in item.rows]
    parquet.write_rows(folders["patches"] / "patches.parquet", "patches", rows)

    body.write(folders["report"], body.gather(folders), ReportConfig().mistakes)
    ref = Ref(kind="model", key="0" * 64, digest="0" * 64)
    candidate = candidates.Candidate(folders, ref, data.name, measured.headline)
    verdict = candidates.judge(candidate, None, "mnist", GateConfig())
    assert verdict.outcome == "promoted", verdict


if __name__ == "__main__":
    main(Path(sys.argv[1]))
