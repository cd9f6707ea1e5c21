"""Shards of a search: what was kept of one may not be left out of the whole."""

from pathlib import Path

import pytest

from cnn.errors import ArtifactError
from tasks.runtime import shards


def test_a_result_that_has_gone_is_no_result_without_it(tmp_path: Path) -> None:
    """The others alone would be taken for the whole."""
    with pytest.raises(ArtifactError, match=r"part\.npz has gone meanwhile; run again"):
        shards._kept(tmp_path / "part.npz")
