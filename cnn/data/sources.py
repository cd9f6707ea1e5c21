"""Where data sets come from: identified for a key, then loaded, checked and split."""

import logging
from pathlib import Path

from cnn.config.run import DataConfig
from cnn.data import checks, own_data, published, splits
from cnn.data.base import Source
from cnn.data.dataset import Dataset
from cnn.data.digits import Digits
from cnn.data.published import Published
from cnn.errors import ConfigError, UnreachableError

log = logging.getLogger(__name__)

OUT_OF_REACH = "MNIST could not be reached"  # begins the note of a run on digits in its place
AUTO_SECONDS = 20.0


def identify(config: DataConfig, downloads: Path) -> Source:
    """Return the source that a config names, without a network.

    Files of a folder are hashed, and fetched ones whose digests are not pinned; where those
    are not fetched yet, the source has no digests. Raises DataError for a folder that is
    missing or does not hold what it should, ConfigError for `auto`.
    """
    if config.source in published.SETS:
        return Published.identify(config, downloads)
    if config.source == "digits":
        return Digits.identify(config, downloads)
    if config.source == "folder":
        return own_data.identify(config, downloads)
    raise ConfigError(
        "data.source auto is resolved by the command before a flow starts; name another source here"
    )


def load(source: Source, config: DataConfig) -> Dataset:
    """Return the data set of an identified source, checked and split.

    Raises DataError naming the file where anything is not as it should be, or where a
    file changed since it was identified.
    """
    parts = source.load(config.split_seed)
    if config.source == "folder" and checks.look_inverted(parts.train.images):
        log.warning(
            "%s: most images have bright borders, so the set looks inverted: ink is expected to be "
            "bright on a dark background. It is used as it is",
            config.path,
        )
    kept, held_out = splits.stratified(
        parts.train.labels, config.validation_fraction, config.split_seed
    )
    train, validation = parts.train.divide(kept, held_out)
    return Dataset(
        source.name,
        parts.class_names,
        {"train": train, "validation": validation, "test": parts.test},
        source.identity(),
        parts.files,
        source.title,
    )


def resolve_auto(config: DataConfig, downloads: Path) -> tuple[DataConfig, str]:
    """Return a config without `auto`, and what a person should know about the choice.

    `auto` becomes mnist where its files are there or can be fetched within
    AUTO_SECONDS, else digits. Any other config is returned as it is, with "".
    """
    if config.source != "auto":
        return config, ""
    try:
        published.fetch("mnist", downloads, AUTO_SECONDS)
    except UnreachableError as error:
        log.info("%s", error)
        note = (
            f"{OUT_OF_REACH}, so this run uses digits: 1,797 scans that ship with "
            "scikit-learn. Its figures are not MNIST's."
        )
        return config.model_copy(update={"source": "digits"}), note
    return config.model_copy(update={"source": "mnist"}), ""


def guess_auto(config: DataConfig, downloads: Path) -> tuple[DataConfig, str]:
    """Return what `resolve_auto` would without a network, for a plan."""
    if config.source != "auto":
        return config, ""
    if published.is_fetched("mnist", downloads):
        return config.model_copy(update={"source": "mnist"}), ""
    note = "MNIST is not fetched yet; the plan is for digits, a run will try MNIST first"
    return config.model_copy(update={"source": "digits"}), note
