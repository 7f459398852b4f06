"""Searching through a running server: no model, no table and no numerical library is loaded.

What a server answers is checked before it is used. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import secrets
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mcip.core.choices import Fusion
from mcip.core.errors import ConfigError, DataError, McipError, UnreadableImage
from mcip.retrieval.results import Hit, Results
from mcip.server.local import KEY_HEADER, Note, proof
from mcip.server.settings import MAX_ID, MAX_TEXT

_LARGEST: Final = 32_000_000
_SECONDS: Final = 30.0
# Seconds within which a server of this machine must prove what it serves.
_AT_ONCE: Final = 2.0
_ERRORS: Final[dict[int, type[McipError]]] = {404: DataError, 410: UnreadableImage, 415: UnreadableImage}


class ServerError(McipError):
    """A server does not answer, or not as `mcip serve` does."""


@dataclass(frozen=True)
class RemoteQuery:
    """A query for a server; `images` are files, the others as in `mcip.server.schema.SearchRequest`."""

    images: Sequence[Path] = ()
    ids: Sequence[str] = ()
    texts: Sequence[str] = ()
    negative_images: Sequence[Path] = ()
    negative_ids: Sequence[str] = ()
    negative_texts: Sequence[str] = ()
    weights: Sequence[float] = ()
    where: str | None = None
    k: int = 10
    offset: int = 0
    exact: bool = False
    collapse: float | None = None
    min_score: str | None = None
    fusion: Fusion = "sum"

    def fields(self) -> list[tuple[str, str]]:
        """The names and values of all but the images."""
        lists = {
            "id": self.ids, "text": self.texts, "negative_id": self.negative_ids, "negative": self.negative_texts,
            "weight": [repr(float(weight)) for weight in self.weights],
        }  # fmt: skip
        fields = [(name, value) for name, values in lists.items() for value in values]
        fields += [("where", self.where)] if self.where and self.where.strip() else []
        fields += [] if self.collapse is None else [("collapse", repr(float(self.collapse)))]
        fields += [] if self.min_score is None else [("min_score", self.min_score)]
        return [
            *fields,
            ("fusion", self.fusion),
            ("k", str(self.k)),
            ("offset", str(self.offset)),
            ("exact", str(self.exact).lower()),
        ]


@dataclass
class Client:
    """A server that is asked.

    Attributes:
        url: Its address.
        token: What it wants to be shown.
        key: Of a server of the same user, which then tells where images lie.
    """

    url: str
    token: str | None = None
    key: str | None = None
    _headers: dict[str, str] = field(init=False)
    _prefix: str = field(init=False)
    _connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            ConfigError: It is none, or the token would be sent over the network for everyone to read.
        """
        try:
            parts = urllib.parse.urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"{self.url} is no address of a server: {error}.") from error
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
            raise ConfigError(f"{self.url} is no address of a server: write it like http://127.0.0.1:8000.")
        if self.token and parts.scheme == "http" and not is_loopback(host):
            raise ConfigError(f"The token is not sent to {host} over http, where others can read it: use https.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(host, port, timeout=_SECONDS)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self._headers |= {KEY_HEADER: self.key} if self.key else {}

    @classmethod
    def of(cls, note: Note) -> Client | None:
        """A client of a server of this machine, if it proves that it serves the table of the note."""
        host = urllib.parse.urlsplit(note.address).hostname or ""
        if not is_loopback(host):
            return None
        nonce, stranger = secrets.token_hex(16), cls(note.address)
        stranger._connection.timeout = _AT_ONCE
        try:
            answer = stranger._ask("GET", f"/local?nonce={nonce}")
        except McipError:
            return None
        finally:
            stranger._connection.close()
        return cls(note.address, key=note.key) if answer == {"proof": proof(note.key, nonce, note.table)} else None

    def search(self, query: RemoteQuery) -> Results:
        """Ask for the images that fit a query.

        Returns:
            The hits. Their `path` is empty where the server does not tell it.

        Raises:
            ServerError: It does not answer, or not as it should.
            ConfigError: It refuses the query.
            DataError: It has no image with an id of the query.
            UnreadableImage: It cannot use an image.
        """
        fields = query.fields()
        if query.images or query.negative_images:
            answer = self._ask("POST", "/search", *_form(fields, query.images, query.negative_images))
        else:
            answer = self._ask("GET", f"/search?{urllib.parse.urlencode(fields)}")
        try:
            return Results(tuple(map(_hit, answer["hits"][: query.k])), _whole(answer["version"]), _line(answer))
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"The answer of {self.url} is not one of `mcip serve`: {error}.") from error
        finally:
            self._connection.close()

    def _ask(self, method: str, target: str, body: bytes | None = None, kind: str | None = None) -> dict[str, Any]:
        headers = {**self._headers, "Accept": "application/json", **({"Content-Type": kind} if kind else {})}
        try:
            self._connection.request(method, self._prefix + target, body, headers)
            response = self._connection.getresponse()
            content = response.read(_LARGEST + 1)
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{self.url} does not answer: {error}.") from error
        try:
            answer = json.loads(content) if len(content) <= _LARGEST else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServerError(f"{self.url} answered with status {response.status}, and not as `mcip serve` does.")
        if response.status == 200:
            return answer
        detail = str(answer.get("detail"))[:MAX_TEXT]
        if response.status in (400, 413, 422):
            raise ConfigError(f"{self.url} refuses the query: {detail}")
        if response.status == 401:
            raise ConfigError(f"{self.url} refuses the query: {detail} Set the environment variable MCIP_TOKEN.")
        raise _ERRORS.get(response.status, ServerError)(f"{self.url} answered: {detail}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _form(fields: list[tuple[str, str]], images: Sequence[Path], negative: Sequence[Path]) -> tuple[bytes, str]:
    """A form with files, and its type."""
    boundary, parts = secrets.token_hex(24), list[bytes]()
    start = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    for name, value in fields:
        parts.append(f'{start}{name}"\r\n\r\n{value}\r\n'.encode())
    for name, path in [("image", path) for path in images] + [("negative_image", path) for path in negative]:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{path}: {error.strerror or error}") from error
        parts.append(f'{start}{name}"; filename="image"\r\n\r\n'.encode() + content + b"\r\n")
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _hit(found: dict[str, Any]) -> Hit:
    score, metadata = float(found["score"]), dict(found["metadata"])
    if not math.isfinite(score) or not all(isinstance(name, str) for name in metadata):
        raise ValueError("a score or a column's name is out of range")
    id, path = found["id"], found.get("path", "")
    if not (isinstance(id, str) and isinstance(path, str) and len(id) <= MAX_ID):
        raise ValueError("an id or a path is no text")
    others = tuple(_hit(other) for other in found.get("others", ()))
    return Hit(id, score, path, _whole(found["width"]), _whole(found["height"]), metadata, others)


def _line(answer: dict[str, Any]) -> float | None:
    line = answer.get("line")
    if line is not None and not math.isfinite(line := float(line)):
        raise ValueError("the line is out of range")
    return line


def _whole(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value
