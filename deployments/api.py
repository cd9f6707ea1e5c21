"""Asks Prefect's API; a request that it refuses because its database is busy is made again."""

import time

import httpx

from deployments.settings import Settings

_PAUSE = 0.5  # seconds until the same is asked again


def ask(
    settings: Settings, method: str, path: str, body: object = None, seconds: float = 30.0
) -> httpx.Response:
    """Return the API's answer, whatever its status.

    A busy SQLite makes the server answer 503; that is asked again for so many seconds, as Prefect's
    own client does. Raises httpx.HTTPError where no answer comes.
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
