"""What the API answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import orjson
from fastapi import APIRouter, Depends, FastAPI, Form, Path, Query, Request, Response
from fastapi.security import HTTPBearer
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

from mcip.core.errors import UnreadableImage
from mcip.retrieval.location import table_location
from mcip.retrieval.results import Hit as FoundHit
from mcip.retrieval.results import Results
from mcip.server.facets import add_facets
from mcip.server.files import FileResponse, unchanged, validators
from mcip.server.guard import COOKIE, cookie_value, same
from mcip.server.local import KEY_HEADER, proof
from mcip.server.metrics import MEDIA_TYPE
from mcip.server.schema import (
    About,
    Answer,
    Column,
    Health,
    ImageSearchRequest,
    Login,
    MinScore,
    Problem,
    SearchRequest,
    Where,
)  # fmt: skip
from mcip.server.service import Query as ServiceQuery
from mcip.server.service import Service
from mcip.server.settings import MAX_DEPTH, MAX_ID, MAX_PARTS, THUMBNAIL_SIDES, Settings

log = logging.getLogger("mcip.serve")
Value = TypeVar("Value")
Responses: TypeAlias = dict[int | str, dict[str, Any]]
Problems: TypeAlias = Callable[..., Responses]

WHY: Final = {
    304: "What the client has is still right.",
    400: "Nothing to look for, a wrong filter, a number out of this server's range, or a broken body.",
    401: "The token is missing or wrong.",
    404: "There is no image with this id in the index.",
    408: "The request did not arrive in time.",
    410: "The image's file is gone, is larger than this server sends, or is not the one that was indexed.",
    413: "The request is too large.",
    416: "The range lies outside of the file.",
    415: "What was uploaded is no image, cannot be decoded, has too many pixels, or is no form.",
    422: "A parameter is unknown, missing, or not of its type.",
    503: "The index is being loaded, or there is too much to do; ask again.",
}
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
ImageId = Annotated[
    str, Path(description="An image's id.", min_length=1, max_length=MAX_ID, pattern=r"^[^\x00]*$")
]  # fmt: skip
Side = Annotated[int, Query(ge=THUMBNAIL_SIDES[0], le=THUMBNAIL_SIDES[1], description="Pixels.")]


class _IdConvertor(Convertor[str]):
    """All that is left of a path, with slashes and line breaks."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _IdConvertor())


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the API of a service to an application."""
    # For the description only: `Guard` has checked the token before anything of the request is read.
    needs_token = service.settings.token is not None
    guarded = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False))] if needs_token else [])
    problems = partial(_problems, (401,) if needs_token else ())
    _add_searches(guarded, service, problems)
    _add_files(guarded, service, problems)
    _add_facts(guarded, service, problems)
    add_facets(guarded, service, problems)
    _add_health(app, service)
    if service.settings.key is not None:
        _add_local(app, service, service.settings.key)
    _add_session(app, service.settings, problems)
    app.include_router(guarded)


def _problems(always: tuple[int, ...], *statuses: int) -> Responses:
    """Descriptions of error answers: those with these statuses, and those that every guarded route may give."""
    return {status: {"model": Problem, "description": WHY[status]} for status in sorted((*statuses, *always))}


def _add_searches(guarded: APIRouter, service: Service, problems: Problems) -> None:
    settings = service.settings

    async def answer(query: ServiceQuery, request: Request) -> Response:
        results, version = await asyncio.wait_for(service.search(query), settings.seconds)
        after = query.offset + query.k
        more = len(results) == query.k and after < MAX_DEPTH
        with_paths = settings.key is not None and same(request.headers.get(KEY_HEADER, ""), settings.key)
        return _answer(results, version, after if more else None, query.empty, with_paths)

    @guarded.get(
        "/search",
        summary="Search by texts and indexed images",
        response_model=Answer,
        responses=problems(400, 404, 422, 503),
    )
    async def search(request: Request, sent: Annotated[SearchRequest, Query()]) -> Response:
        return await answer(_query(sent), request)

    @guarded.post(
        "/search",
        summary="Search by uploaded images, texts and indexed images",
        response_model=Answer,
        responses=problems(400, 404, 408, 413, 415, 422, 503),
    )
    async def search_by_images(
        request: Request, sent: Annotated[ImageSearchRequest, Form(media_type=_FORMS[0])]
    ) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _FORMS:
            raise HTTPException(415, f"Send a form ({_FORMS[0]}), not {kind or 'a body without a type'}.")
        images, negative = [[await file.read() for file in files] for files in (sent.image, sent.negative_image)]
        return await answer(_query(sent, images, negative), request)

    @guarded.get(
        "/similar/{id:id}",
        summary="Images like an indexed one, without itself",
        response_model=Answer,
        responses=problems(400, 404, 422, 503),
    )
    async def similar(
        id: ImageId,
        k: Annotated[int, Query(ge=1, le=MAX_DEPTH)] = 24,
        where: Annotated[Where | None, Query()] = None,
        min_score: Annotated[MinScore | None, Query()] = None,
    ) -> Response:
        results, version = await asyncio.wait_for(service.similar(id, k, where, min_score), settings.seconds)
        return _answer(results, version, None, False)


def _add_files(guarded: APIRouter, service: Service, problems: Problems) -> None:
    seconds = service.settings.seconds
    always: Responses = {304: {"description": WHY[304]}, **problems(404, 410, 422, 503)}

    @guarded.get(
        "/image/{id:id}",
        summary="An image's file, as it was indexed",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}, 206: {"content": {"image/*": {}}}, **always, **problems(416)},
    )
    async def image(id: ImageId, request: Request) -> Response:
        file = await _or_gone(asyncio.wait_for(service.file(id), seconds))

        def release() -> None:
            service.release(file)

        known = unchanged(request.headers, file.hash)
        try:
            if known is None:
                return FileResponse(file, request.headers, service.call, release)
        except HTTPException:
            file.content.close()
            release()
            raise
        file.content.close()
        release()
        return known

    @guarded.get(
        "/thumbnail/{id:id}",
        summary="An image as a small JPEG",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **always},
    )
    async def thumbnail(id: ImageId, request: Request, side: Side = 320) -> Response:
        content, etag = await _or_gone(asyncio.wait_for(service.thumbnail(id, side), seconds))
        known = unchanged(request.headers, etag)
        return known or Response(content, media_type="image/jpeg", headers=validators(etag))


async def _or_gone(response: Awaitable[Value]) -> Value:
    """A file, or an answer that does not name the place where it should be."""
    try:
        return await response
    except UnreadableImage as error:
        log.info("%s", error)
        raise HTTPException(410, WHY[410]) from None


def _add_facts(guarded: APIRouter, service: Service, problems: Problems) -> None:
    settings = service.settings

    @guarded.get("/about", summary="What is served, and within which limits", responses=problems(503))
    async def about() -> About:
        current = service.current
        index, schema = current.index, current.index.engine.table.schema
        columns = [Column(name=name, type=str(schema.field(name).type)) for name in current.filterable]
        return About(
            images=len(index), version=current.version, model=PurePath(index.model_name).name,
            fingerprint=index.fingerprint, columns=columns,
            max_k=settings.max_k, max_depth=MAX_DEPTH, max_parts=MAX_PARTS, max_upload=settings.max_upload,
            max_pixels=settings.max_pixels,
        )  # fmt: skip

    @guarded.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **problems()},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": MEDIA_TYPE})


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the server can answer", responses={503: {"model": Health}})
    async def healthz(response: Response) -> Health:
        response.status_code = 200 if service.ready else 503
        return Health(status="ready" if service.ready else "loading", problem=service.problem)


def _add_local(app: FastAPI, service: Service, key: str) -> None:
    @app.get("/local", include_in_schema=False)
    async def local(nonce: Annotated[str, Query(min_length=16, max_length=64)]) -> dict[str, str]:
        return {"proof": proof(key, nonce, table_location(service.current.index.uri))}


def _add_session(app: FastAPI, settings: Settings, problems: Problems) -> None:
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


def _query(sent: SearchRequest, images: Sequence[bytes] = (), negative_images: Sequence[bytes] = ()) -> ServiceQuery:
    return ServiceQuery(
        images, sent.id, sent.text, negative_images, sent.negative_id, sent.negative, sent.weight, sent.balance,
        sent.where, sent.k, sent.offset, sent.exact, sent.collapse, sent.min_score, sent.fusion,
    )  # fmt: skip


def _answer(
    results: Results, version: int, next_offset: int | None, unscored: bool, with_paths: bool = False
) -> Response:
    """An `Answer` as JSON: written at once, since checking what this server made itself takes longer than a search."""

    def described(hit: FoundHit) -> dict[str, Any]:
        return {
            "id": hit.id, "score": None if unscored else hit.score, "width": hit.width, "height": hit.height,
            "metadata": hit.metadata, "others": [described(other) for other in hit.others],
            **({"path": hit.path} if with_paths else {}),
        }  # fmt: skip

    hits = [described(hit) for hit in results]
    content = {"hits": hits, "next_offset": next_offset, "version": version, "line": results.line}
    # As `mcip.retrieval.results.plain` has it: numbers that are not finite are null, times and decimals texts.
    return Response(orjson.dumps(content, str, orjson.OPT_PASSTHROUGH_DATETIME), media_type="application/json")
