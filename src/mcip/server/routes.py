"""What the API answers."""

from __future__ import annotations

import asyncio
from pathlib import PurePath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Form, Path, Query, Request, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from mcip.core.errors import UnreadableImage
from mcip.retrieval.results import Results, plain
from mcip.server.guard import COOKIE, cookie_value, same
from mcip.server.metrics import MEDIA_TYPE
from mcip.server.schema import (
    About,
    Answer,
    Ask,
    Column,
    Found,
    Health,
    Login,
    Problem,
    SearchByImages,
)  # fmt: skip
from mcip.server.service import Query as Wanted
from mcip.server.service import Service, filterable
from mcip.server.settings import MAX_DEPTH, MAX_PARTS, THUMBNAIL_SIDES

WHY: Final = {
    400: "Nothing to look for, no filter, a number out of this server's range, or a broken body.",
    401: "The token is missing or wrong.",
    404: "There is no picture with this id in the index.",
    408: "The request did not arrive in time.",
    410: "The picture's file is gone, or is not the one that was indexed.",
    413: "The request is too large.",
    415: "What was uploaded is no picture, has too many pixels, or is no form.",
    422: "A parameter is unknown, missing, or not of its type.",
    503: "The index is being loaded, or there is too much to do; ask again.",
}
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
# Pictures of an index change seldom, but an id may get another picture.
_KEPT = {"cache-control": "private, max-age=300"}
ImageId = Annotated[str, Path(description="A picture's id.", min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Side = Annotated[int, Query(ge=THUMBNAIL_SIDES[0], le=THUMBNAIL_SIDES[1], description="Pixels.")]


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the API of a service to an application."""
    settings = service.settings
    # For the description only: `Guard` has checked the token before anything of the request is read.
    guarded = APIRouter(dependencies=[] if settings.token is None else [Depends(HTTPBearer(auto_error=False))])

    def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
        always = (401,) if settings.token is not None else ()
        return {status: {"model": Problem, "description": WHY[status]} for status in sorted((*statuses, *always))}

    async def answer(wanted: Wanted) -> Answer:
        results = await asyncio.wait_for(service.search(wanted), settings.seconds)
        whole = len(results) == wanted.k
        after = wanted.offset + wanted.k
        return _answer(service, results, after if whole and after < MAX_DEPTH else None, wanted.empty)

    @guarded.get("/search", summary="Search by texts and pictures of the index", responses=problems(400, 404, 422, 503))
    async def search(ask: Annotated[Ask, Query()]) -> Answer:
        return await answer(_wanted(ask))

    @guarded.post(
        "/search",
        summary="Search by uploaded pictures, texts and pictures of the index",
        responses=problems(400, 404, 408, 413, 415, 422, 503),
    )
    async def search_by_images(request: Request, ask: Annotated[SearchByImages, Form(media_type=_FORMS[0])]) -> Answer:
        sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if sent not in _FORMS:
            raise HTTPException(415, f"Send a form ({_FORMS[0]}), not {sent or 'a body without a type'}.")
        images, away = [[await file.read() for file in files] for files in (ask.image, ask.negative_image)]
        return await answer(_wanted(ask, images, away))

    @guarded.get(
        "/similar/{id:path}",
        summary="Pictures like one of the index, without itself",
        responses=problems(400, 404, 422, 503),
    )
    async def similar(
        id: ImageId,
        k: Annotated[int, Query(ge=1, le=MAX_DEPTH)] = 24,
        where: Annotated[str | None, Query(max_length=1000, pattern=r"^[^\x00]*$")] = None,
    ) -> Answer:
        results = await asyncio.wait_for(service.similar(id, k, where), settings.seconds)
        return _answer(service, results, None, False)

    @guarded.get(
        "/image/{id:path}",
        summary="A picture's file, as it was indexed",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}, **problems(404, 410, 422, 503)},
    )
    async def image(id: ImageId) -> Response:
        try:
            content, kind = await asyncio.wait_for(service.call(service.index.picture, id), settings.seconds)
        except UnreadableImage:
            # The error names the file's place, which is nobody's business.
            raise HTTPException(410, WHY[410]) from None
        return Response(content, media_type=kind, headers=_KEPT)

    @guarded.get(
        "/thumbnail/{id:path}",
        summary="A picture as a small JPEG",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **problems(404, 410, 422, 503)},
    )
    async def thumbnail(id: ImageId, side: Side = 320) -> Response:
        try:
            content = await asyncio.wait_for(service.thumbnail(id, side), settings.seconds)
        except UnreadableImage:
            raise HTTPException(410, WHY[410]) from None
        return Response(content, media_type="image/jpeg", headers=_KEPT)

    @guarded.get("/about", summary="What is served, and what may be asked", responses=problems(503))
    async def about() -> About:
        index = service.index
        table = index.engine.table
        columns = [Column(name=name, type=str(table.schema.field(name).type)) for name in filterable(index)]
        return About(
            pictures=len(index), version=table.version, model=PurePath(index.model_name).name,
            fingerprint=index.fingerprint, columns=columns,
            max_k=settings.max_k, max_depth=MAX_DEPTH, max_parts=MAX_PARTS, max_upload=settings.max_upload,
            max_pixels=settings.max_pixels,
        )  # fmt: skip

    @app.get("/healthz", summary="Whether the server can answer", responses={503: {"model": Health}})
    async def healthz(response: Response) -> Health:
        response.status_code = 200 if service.ready else 503
        return Health(status="ready" if service.ready else "loading", problem=service.problem)

    @guarded.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **problems()},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": MEDIA_TYPE})

    @app.post(
        "/session",
        status_code=204,
        response_class=Response,
        summary="Let a browser in by a cookie, which its images need",
        responses={**problems(400, 408, 413, 422), 401: {"model": Problem, "description": WHY[401]}},
    )
    async def session(login: Login) -> Response:
        if settings.token is None:
            return Response(status_code=204)
        if not same(login.token, settings.token):
            raise HTTPException(401, "This is not the token.")
        response = Response(status_code=204)
        response.set_cookie(COOKIE, cookie_value(settings.token), httponly=True, samesite="strict", max_age=30 * 86_400)
        return response

    app.include_router(guarded)


def _wanted(ask: Ask, images: list[bytes] | None = None, negative_images: list[bytes] | None = None) -> Wanted:
    where = ask.where if ask.where and ask.where.strip() else None
    return Wanted(
        images or [], ask.id, ask.text, negative_images or [], ask.negative_id, ask.negative, ask.weight, ask.balance,
        where, ask.k, ask.offset, ask.exact,
    )  # fmt: skip


def _answer(service: Service, results: Results, next_offset: int | None, unscored: bool) -> Answer:
    hits = [
        Found(
            id=hit.id, score=None if unscored else hit.score, width=hit.width, height=hit.height,
            metadata=plain(hit.metadata),
        )
        for hit in results
    ]  # fmt: skip
    return Answer(hits=hits, next_offset=next_offset, version=service.index.engine.table.version)
