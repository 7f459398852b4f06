"""The page: a few files of this package, served as they are."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import FastAPI, Response
from starlette.exceptions import HTTPException

from mcip.server.guard import STATIC

_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "filters.js": "text/javascript; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "query.js": "text/javascript; charset=utf-8",
    "results.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def add_page(app: FastAPI) -> None:
    """Add the page to an application."""
    folder = resources.files("mcip.server").joinpath("static")
    files = {name: folder.joinpath(name).read_bytes() for name in _TYPES}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _response("index.html")

    @app.get(STATIC + "{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, f"The page has no part {name!r}.")
        return _response(name)

    def _response(name: str) -> Response:
        # Looked for each time, so that a page never runs with parts of another version.
        return Response(files[name], headers={"content-type": _TYPES[name], "cache-control": "no-cache"})
