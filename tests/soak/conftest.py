"""A Prefect server that records the runs of the soak."""

from collections.abc import Iterator

import pytest

from tests.services.servers import Server, server_with


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server with the database that it has by default."""
    with server_with("sqlite", tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module", autouse=True)
def recorded(server: Server) -> Iterator[None]:
    """Runs are recorded by the server, as an operator's are."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_HOME", "PREFECT_API_URL"):
            patch.setenv(name, server.environment[name])
        yield
