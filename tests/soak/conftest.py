"""A Prefect server that records the runs of the soak test."""

from collections.abc import Iterator

import pytest

from tests.services.servers import Server, server_with


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server with its default database."""
    with server_with("sqlite", tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module", autouse=True)
def recorded(server: Server) -> Iterator[None]:
    """The server records the runs, as on an operator's machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_HOME", "PREFECT_API_URL"):
            patch.setenv(name, server.environment[name])
        yield
