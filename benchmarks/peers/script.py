"""The work of a first run as a plain script: the same arithmetic, files and checks of the gate.

Without Prefect, store, keys or anything in parallel.
"""

import sys
from pathlib import Path

from benchmarks.peers import ours
from cnn.config.run import GateConfig, MiningConfig, ReportConfig, RuntimeConfig
from cnn.data import dataset as datasets
from cnn.evaluate import evaluation
from cnn.explain import activations, filters, patches
from cnn.model_io import exports
from cnn.promotion import candidate as candidates
from cnn.report.pages import body
from cnn.store.refs import Kind, Ref
from cnn.train import device, fit, trained

_KINDS: tuple[Kind, ...] = ("dataset", "model", "evaluation", "filters", "patches", "report")


def main(root: Path) -> None:
    """Load, train `spec`, evaluate, export, mine, report and judge, in a new folder."""
    folders: dict[Kind, Path] = {kind: root / kind for kind in _KINDS}
    for folder in folders.values():
        folder.mkdir(parents=True)
    where = device.prepare(RuntimeConfig())
    datasets.write(folders["dataset"], ours.dataset())
    data = datasets.read(folders["dataset"])

    settings = ours.changed("spec", {})
    fitted = fit.fit(data, settings, 0)
    trained.write(folders["model"], fitted, data, settings, 0, where)

    model = exports.load_model(folders["model"])
    measured = evaluation.evaluate(model, data, calibration_bins=15)
    evaluation.write(folders["evaluation"], measured)
    layers = activations.explained_layers(model)
    filters.write(folders["filters"], [filters.describe(model, layer, data) for layer in layers])
    wanted = [MiningConfig(layer=layer) for layer in layers]
    mined = [patches.mine(model, data, item, data.class_names) for item in wanted]
    patches.write(folders["patches"], mined)

    body.write(folders["report"], body.gather(folders), ReportConfig().mistakes)
    ref = Ref(kind="model", key="0" * 64, digest="0" * 64)
    candidate = candidates.Candidate(folders, ref, data.name, measured.headline)
    verdict = candidates.judge(candidate, None, "mnist", GateConfig())
    assert verdict.outcome == "promoted", verdict


if __name__ == "__main__":
    main(Path(sys.argv[1]))
