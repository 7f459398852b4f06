"""What every request passes first: who may ask, how much, for how long; and the headers of every answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcip.server.files import HEAD
from mcip.server.settings import Settings

COOKIE: Final = "mcip"
# What is served to those without the token: the page without its data, and whether the server is up.
OPEN: Final = frozenset(("/", "/healthz", "/session", "/openapi.json", "/favicon.ico"))
STATIC: Final = "/page/"
# Where images are uploaded; other paths need no large bodies.
UPLOADS: Final = "/search"
_SMALL: Final = 16_384
# A form without files, each of its fields as long as may be.
_WITHOUT_FILES: Final = 500_000
_TOO_MANY: Final = "Too many requests at a time: ask again in a moment."
# A form's boundary has up to 70 characters; white space may follow it.
_LONGEST_END: Final = 128
# The page loads from this server alone, and runs no script but its own.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
log = logging.getLogger("mcip.serve")


def cookie_value(token: str) -> str:
    """What a browser keeps in place of the token: the same on every server with that token."""
    return hmac.new(token.encode(), b"mcip page", hashlib.sha256).hexdigest()


def same(given: str, secret: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how much of them is."""
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


class Guard:
    """Lets through what is allowed, within the limits; an error never shows more than a sentence."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._load = _Load()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        body = _Body(receive, scope, self.settings, self._load)
        if scope["method"] == "HEAD":
            # What GET answers, without the body.
            scope["method"], scope[HEAD] = "GET", True

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                # Slow clients do not keep others from being answered.
                body.release_slot()
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            elif scope.get(HEAD):
                message = {**message, "body": b""}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        try:
            if scope["method"] != "POST":
                body.take_slot()
            await self.app(scope, body, answer)
        except Exception:
            log.exception("%s %s failed.", scope["method"], scope["path"])
            if started:
                raise
            wrong = problem(500, "Something went wrong in the server; its log says what.")
            await wrong(scope, receive, answer)
        finally:
            body.release()

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers, settings = Headers(scope=scope), self.settings
        if settings.hosts is not None and _host(headers) not in settings.hosts:
            return problem(421, "This server answers only to the names of this machine: open it as localhost.")
        open_ = scope["path"] in OPEN or scope["path"].startswith(STATIC)
        if settings.token is not None and not open_ and not _knows(headers, settings.token):
            refusal = problem(401, "A token is needed: send it in the header `Authorization: Bearer TOKEN`.")
            refusal.headers["www-authenticate"] = "Bearer"
            return refusal
        length = headers.get("content-length", "0")
        limit = _limit(scope, settings)
        if not length.isdecimal() or int(length) > limit:
            refusal = problem(413, _too_much(limit))
            # What follows would be read as the next request.
            refusal.headers["connection"] = "close"
            return refusal
        if scope["method"] != "POST" and self._load.running >= settings.max_waiting:
            return busy(_TOO_MANY)
        return None


@dataclass
class _Load:
    """What all requests together take: those that are worked on, and bytes of bodies."""

    running: int = 0
    received: int = 0


class _Body:
    """A request's body, which is an error if it is too large, arrives too slowly, or is a form without its end.

    A request is worked on from when its body is complete until its answer starts. Only then does it take a slot.
    """

    def __init__(self, receive: Receive, scope: Scope, settings: Settings, load: _Load) -> None:
        self._receive = receive
        self._settings = settings
        self._load = load
        self._limit = _limit(scope, settings)
        self._until = asyncio.get_running_loop().time() + settings.seconds
        self._size = 0
        self._complete = self._has_slot = False
        self._form_end = _form_end(Headers(scope=scope).get("content-type", ""))
        self._tail = b""

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"The request did not arrive within {self._settings.seconds:g} s.") from None
        if message["type"] == "http.disconnect":
            return message
        part = message.get("body", b"")
        self._size += len(part)
        self._load.received += len(part)
        if self._size > self._limit:
            raise HTTPException(413, _too_much(self._limit))
        if self._load.received > self._settings.max_held:
            raise HTTPException(503, "Too much is being uploaded: ask again in a moment.", {"retry-after": "1"})
        self._tail = (self._tail + part)[-_LONGEST_END:]
        if not message.get("more_body", False):
            self._finish()
        return message

    def take_slot(self) -> None:
        """Count this request as one that is worked on."""
        self._has_slot = True
        self._load.running += 1

    def release_slot(self) -> None:
        """Count it no more."""
        self._load.running -= self._has_slot
        self._has_slot = False

    def release(self) -> None:
        """The request has ended."""
        self.release_slot()
        self._load.received -= self._size

    def _finish(self) -> None:
        self._complete = True
        if self._form_end and not self._tail.rstrip().endswith(self._form_end):
            # Parsers of forms take what there is of one that is cut off, which may be nothing.
            raise HTTPException(400, "The form is broken: it does not end with its boundary.")
        if self._has_slot:
            return
        if self._load.running >= self._settings.max_waiting:
            raise HTTPException(503, _TOO_MANY, {"retry-after": "1"})
        self.take_slot()


def _form_end(content_type: str) -> bytes:
    """What a form with files ends with; nothing for other bodies."""
    kind, options = parse_options_header(content_type)
    return b"--" + options.get(b"boundary", b"") + b"--" if kind.lower() == b"multipart/form-data" else b""


def problem(status: int, detail: str) -> JSONResponse:
    """An answer that says why there is none."""
    return JSONResponse({"detail": detail}, status)


def busy(detail: str) -> JSONResponse:
    """An answer that says to ask again."""
    response = problem(503, detail)
    response.headers["retry-after"] = "1"
    return response


def _limit(scope: Scope, settings: Settings) -> int:
    """Bytes that a request's body may have."""
    if scope["path"] != UPLOADS:
        return _SMALL
    if _form_end(Headers(scope=scope).get("content-type", "")):
        return settings.max_upload
    return min(settings.max_upload, _WITHOUT_FILES)


def _too_much(limit: int) -> str:
    return f"The request is too large: at most {limit:,} bytes are taken here."


def _host(headers: Headers) -> str:
    """The name in the `Host` header, without the port."""
    host = headers.get("host", "").lower()
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _knows(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return same(given.strip(), token)
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and same(cookie.value, cookie_value(token))
