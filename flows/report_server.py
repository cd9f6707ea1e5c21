"""A read-only web server for run folders, so that links to reports open in the browser.

It serves files in the store's `runs` folder and nothing outside it. HTML files are harmless: the
response headers forbid scripts, external resources and forms.
"""

import base64
import hmac
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cnn import formatting
from cnn.errors import ArtifactError
from cnn.runs import records
from cnn.store.store import Store, default_root

N_LISTED = 200
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".parquet": "application/vnd.apache.parquet",
    ".keras": "application/zip",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-downloads",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_PAGE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
).get_template("report_server.html")


def app(folder: Path, password: str = "") -> Starlette:
    """Return the server of a `runs` folder.

    password: user:password, checked before anything else; "" lets everyone in.
    """

    async def index(_: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(listing, folder))

    async def file(request: Request) -> Response:
        path = await run_in_threadpool(find, folder, request.path_params["path"])
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=_TYPES.get(path.suffix, "application/octet-stream"))

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(error.detail, error.status_code, error.headers)

    return Starlette(
        routes=[Route("/", index), Route("/{path:path}", file)],
        middleware=[Middleware(_Guard, password=password)],
        exception_handlers={HTTPException: refused},
    )


def find(folder: Path, requested: str) -> Path | None:
    """Return the requested file below a folder; None if there is none to serve.

    Hidden files, including temporary ones, and symbolic links are not served; "<run>/" means
    the run's report.
    """
    names = requested.split("/")
    if len(names) == 2 and not names[1]:
        names[1] = records.REPORT_NAME
    if any(not name or name.startswith(".") or "\0" in name for name in names):
        return None
    path = folder
    try:
        for name in names:
            path = path / name
            if path.is_symlink():
                return None
        return path if path.is_file() else None
    except OSError:  # a name that is too long, or a folder that cannot be read
        return None


def listing(folder: Path) -> str:
    """Return the page that lists the newest runs."""
    folders = (path for path in folder.glob("[!.]*/") if not path.is_symlink())
    names = sorted((path.name for path in folders), reverse=True)
    rows = [_row(folder / name) for name in names[:N_LISTED]]
    return _PAGE.render(rows=rows, n_older=len(names) - len(rows))


def _row(folder: Path) -> dict[str, Any]:
    """Return a run's row in the list; name and error if its record cannot be read."""
    try:
        record = records.read(folder)
    except ArtifactError as error:
        return {"name": folder.name, "link": "", "error": str(error), "record": None}
    shown = next(
        (n for n in (records.REPORT_NAME, records.RECORD_NAME) if (folder / n).is_file()), ""
    )
    return {
        "name": folder.name,
        "link": f"{quote(folder.name)}/{shown}",
        "error": record.error,
        "record": record,
        "accuracy": formatting.percent(record.headline.get("test_accuracy")),
        "seconds": formatting.seconds(record.seconds),
    }


class _Guard:
    """Checks the password, and adds the security headers to every response."""

    def __init__(self, app: ASGIApp, password: str) -> None:
        self._app, self._expected = app, password.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if self._expected and not self._knows(Headers(scope=scope).get("authorization", "")):
            headers = {"WWW-Authenticate": 'Basic realm="filterscope", charset="UTF-8"'}
            await PlainTextResponse("Unauthorized", 401, headers)(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _knows(self, header: str) -> bool:
        scheme, _, encoded = header.partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True)
        except ValueError:
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(given, self._expected)


def main() -> None:
    """Serve until stopped; address, store and password come from the environment."""
    import uvicorn

    uvicorn.run(
        app(Store(default_root()).runs, os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")),
        host=os.environ.get("FILTERSCOPE_PAGES_HOST", "127.0.0.1"),
        port=int(os.environ.get("FILTERSCOPE_PAGES_PORT", "4201")),
        server_header=False,
    )


if __name__ == "__main__":
    main()
