"""A Prefect server that records the runs of the soak."""

from collections.abc import Iterator

import pytest

from tests.services.conftest import Server, server

__all__ = ["server"]


@pytest.fixture(scope="module", autouse=True)
def recorded(server: Server) -> Iterator[None]:
    """Runs are recorded by the server, as an operator's are."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_HOME", "PREFECT_API_URL"):
            patch.setenv(name, server.environment[name])
        yield
