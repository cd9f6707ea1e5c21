"""Sends requests to a Prefect server; repeats those that a busy database refuses, as its client."""

import time
from typing import Any

import httpx


def asked(method: str, url: str, **more: Any) -> httpx.Response:
    """Return the response, whatever its status."""
    for _ in range(60):
        answer = httpx.request(method, url, timeout=60, **more)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(0.5)
    return answer
