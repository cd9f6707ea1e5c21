"""Identify the source of a data set for its key; load, check and split its images."""

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

OUT_OF_REACH = "MNIST could not be reached"  # starts the note of a run that uses digits instead
AUTO_SECONDS = 20.0


def identify(config: DataConfig, downloads: Path) -> Source:
    """Return the source that a config names, without using the network.

    Hashes the files of a folder, and fetched files without pinned digests; if those are not
    fetched yet, the source has no digests. Raises DataError if a folder is missing or does
    not hold a data set, ConfigError for `auto`.
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

    Raises DataError naming the file that is wrong, or that changed after it was identified.
    """
    parts = source.load(config.split_seed)
    if config.source == "folder" and checks.look_inverted(parts.train.images):
        log.warning(
            "%s: most images have bright borders, so the set looks inverted: bright ink on a dark "
            "background is expected. It is used as it is",
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
    )


def resolve_auto(config: DataConfig, downloads: Path) -> tuple[DataConfig, str]:
    """Return a config without `auto`, and a note on the choice for the user.

    `auto` becomes mnist if its files exist or can be fetched within AUTO_SECONDS, else
    digits. Any other config is returned unchanged, with "".
    """
    if config.source != "auto":
        return config, ""
    try:
        published.fetch("mnist", downloads, AUTO_SECONDS)
    except UnreachableError as error:
        log.info("%s", error)
        note = (
            f"{OUT_OF_REACH}, so this run uses digits: 1,797 scans that ship with "
            "scikit-learn. Its results do not apply to MNIST."
        )
        return config.model_copy(update={"source": "digits"}), note
    return config.model_copy(update={"source": "mnist"}), ""


def guess_auto(config: DataConfig, downloads: Path) -> tuple[DataConfig, str]:
    """Return what `resolve_auto` would choose, without using the network, for a plan."""
    if config.source != "auto":
        return config, ""
    if published.is_fetched("mnist", downloads):
        return config.model_copy(update={"source": "mnist"}), ""
    note = "MNIST is not fetched yet; this plan is for digits, but a run will try MNIST first"
    return config.model_copy(update={"source": "digits"}), note
