"""Sends requests to Prefect's API, and repeats those refused because the database is busy."""

import time

import httpx

from deployments.settings import Settings

_PAUSE = 0.5  # seconds between two attempts


def ask(
    settings: Settings, method: str, path: str, body: object = None, seconds: float = 30.0
) -> httpx.Response:
    """Send a request and return the API's response, whatever its status.

    A busy SQLite makes the server respond 503; such a request is repeated for `seconds`, as
    Prefect's own client does. Raises httpx.HTTPError if there is no response.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = httpx.request(
            method,
            f"{settings.api}{path}",
            json=body,
            auth=settings.credentials,
            timeout=seconds,
        )
        busy = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        if not busy or time.monotonic() > deadline:
            return answer
        time.sleep(_PAUSE)
