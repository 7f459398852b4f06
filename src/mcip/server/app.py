"""The HTTP API and the page as one ASGI application."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mcip.core.errors import ArtefactError, ConfigError, DataError, EngineError, ModelError, UnreadableImage
from mcip.retrieval.index import Index
from mcip.server.guard import Guard, busy, problem
from mcip.server.metrics import Measured, Metrics
from mcip.server.page import add_page
from mcip.server.routes import WHY, add_routes
from mcip.server.service import NotReady, Service
from mcip.server.settings import Settings

log = logging.getLogger("mcip.serve")
DESCRIPTION = """
Search one index of images by image, by text, or by both.

Every error is an object with one sentence, `detail`. While the index is loaded, and when there are too many requests,
the answer is 503 with `Retry-After`.
"""


def create_app(
    open_index: Callable[[], Index],
    settings: Settings | None = None,
    on_ready: Callable[[Index], None] | None = None,
    on_failure: Callable[[BaseException], None] | None = None,
    wait: Callable[[], object] | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        open_index: Opens the index; called in a thread when the application starts.
        settings: Limits.
        on_ready: Called when it is open.
        on_failure: Called with the error if the index cannot be opened.
        wait: Called in a thread when it is open: queries are answered when this returns.
    """
    limits, metrics = settings or Settings(), Metrics()
    service = Service(open_index, limits, metrics, on_ready, wait)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        def ended(_: asyncio.Task[None]) -> None:
            if service.failure is not None and on_failure is not None:
                on_failure(service.failure)

        running = asyncio.create_task(service.run())
        running.add_done_callback(ended)
        yield
        running.cancel()
        await asyncio.wait([running])
        service.close()

    # The documentation pages of FastAPI load scripts from other hosts; the description itself is at /openapi.json.
    app = FastAPI(
        title="mcip", version=importlib.metadata.version("mcip"), description=DESCRIPTION, lifespan=lifespan,
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    add_routes(app, service)
    add_page(app)
    _explain_errors(app)
    app.add_middleware(Guard, settings=limits)
    app.add_middleware(Measured, metrics=metrics)
    return app


def _explain_errors(app: FastAPI) -> None:
    """Make of each error on purpose a status and a sentence; `Guard` does so with all others."""

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        reasons = [f"{'.'.join(map(str, part['loc'][1:]))}: {part['msg']}" for part in error.errors()[:5]]
        return problem(422, "; ".join(reasons))

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        response = problem(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    async def late(_: Request, error: Exception) -> JSONResponse:
        return busy("The answer took too long: ask again, or for less.")

    async def not_ready(_: Request, error: Exception) -> JSONResponse:
        return busy(str(error))

    # Errors of an index name where it lies, which is nobody's business.

    async def missing(_: Request, error: Exception) -> JSONResponse:
        return problem(404, WHY[404])

    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
        return busy("The index cannot be read at the moment: the server's log says why.")

    async def wrong(_: Request, error: Exception) -> JSONResponse:
        return problem(400, str(error))

    async def unusable(_: Request, error: Exception) -> JSONResponse:
        return problem(415, f"The image cannot be used: {error}.")

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(TimeoutError, late)
    app.add_exception_handler(NotReady, not_ready)
    app.add_exception_handler(ConfigError, wrong)
    app.add_exception_handler(DataError, missing)
    app.add_exception_handler(ArtefactError, unavailable)
    app.add_exception_handler(ModelError, unavailable)
    app.add_exception_handler(EngineError, unavailable)
    app.add_exception_handler(OSError, unavailable)
    app.add_exception_handler(UnreadableImage, unusable)
