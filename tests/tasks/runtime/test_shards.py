"""Shards of a search: no shard may be missing from the result."""

from pathlib import Path

import pytest

from cnn.errors import ArtifactError
from tasks.runtime import shards


def test_a_shard_whose_result_is_gone_fails_the_search(tmp_path: Path) -> None:
    """The other shards alone must not pass for the whole result."""
    with pytest.raises(ArtifactError, match=r"part\.npz was removed during the search; run again"):
        shards._kept(tmp_path / "part.npz")
