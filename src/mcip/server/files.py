"""The files of indexed images: checked to be those that were indexed, and sent in chunks."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from PIL import Image, UnidentifiedImageError
from pyarrow import fs
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mcip.core.errors import DataError, UnreadableImage
from mcip.data.images import media_type
from mcip.retrieval.listing import read_image
from mcip.retrieval.table import IndexTable, quoted

_CHUNK: Final = 65_536
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# Checked by clients each time, so that none keeps an image that the index does not have any more.
CACHED: Final = "private, no-cache"
# Set by `Guard` where a client asks for an answer's headers alone.
HEAD: Final = "mcip.head"


@dataclass(frozen=True)
class IndexedFile:
    """Where an image was when it was indexed.

    Attributes:
        path: Its file, its URI, or a table and a row in it.
        hash: SHA-256 of its content.
    """

    path: str
    hash: str

    @classmethod
    def find(cls, table: IndexTable, id: str) -> IndexedFile:
        """The file of an image of the index.

        Raises:
            DataError: There is no such id.
        """
        rows = table.read(["path", "hash"], f"id = {quoted(id)}").slice(0, 1).to_pylist()
        if not rows:
            raise DataError(f"{table.uri} holds no image with the id {id!r}.")
        return cls(rows[0]["path"], rows[0]["hash"])

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine, not one in a table or on object storage."""
        return "://" not in self.path and Path(self.path).is_file()

    def state(self) -> tuple[int, ...] | None:
        """What changes when a file of this machine does; None for others."""
        try:
            facts = Path(self.path).stat()
        except (OSError, ValueError):
            return None
        return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino

    def open(self, max_size: int) -> OpenFile:
        """Open it, after comparing its content with the hash.

        Raises:
            UnreadableImage: It is gone, larger than `max_size` bytes, or not the one that was indexed.
        """
        content = _open_local(self.path, max_size) if self.is_local else io.BytesIO(_read(self.path, max_size))
        try:
            if hashlib.file_digest(content, "sha256").hexdigest() != self.hash:  # type: ignore[arg-type]
                raise UnreadableImage(f"{self.path} has changed since it was indexed")
            size = content.seek(0, io.SEEK_END)
            content.seek(0)
            found = _media_type(content)
            content.seek(0)
        except (OSError, UnreadableImage, Image.DecompressionBombError) as error:
            content.close()
            raise UnreadableImage(f"cannot read {self.path}: {error}") from error
        return OpenFile(content, size, found, self.hash)


@dataclass(frozen=True)
class OpenFile:
    """The file of an image, open for reading.

    Attributes:
        content: Its bytes.
        size: Their number.
        media_type: Such as "image/png".
        hash: SHA-256 of the content.
    """

    content: BinaryIO
    size: int
    media_type: str
    hash: str

    @property
    def held(self) -> int:
        """Bytes that lie in memory."""
        return self.size if isinstance(self.content, io.BytesIO) else 0

    def read(self, start: int, length: int) -> bytes:
        """Some of its bytes."""
        self.content.seek(start)
        return self.content.read(length)


class FileResponse(StreamingResponse):
    """An open file, or the range of it that the client requests, sent in chunks; the file is closed at the end."""

    def __init__(
        self,
        file: OpenFile,
        requested: Headers,
        call: Callable[..., Awaitable[bytes]],
        on_close: Callable[[], None],
    ) -> None:
        """Prepare the answer.

        Args:
            file: The file.
            requested: The request's headers.
            call: Calls a function in a thread.
            on_close: Called when the file is closed.

        Raises:
            HTTPException: The range lies outside of the file.
        """
        self._file = file
        self._on_close = on_close
        headers = validators(file.hash) | {"accept-ranges": "bytes"}
        start, end, status = 0, file.size, 200
        if part := _requested_range(requested, headers["etag"], file.size):
            start, end, status = *part, 206
            headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
        headers["content-length"] = str(end - start)

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(start, end, _CHUNK):
                yield await call(file.read, at, min(_CHUNK, end - at))

        super().__init__(chunks(), status, headers, file.media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            if scope.get(HEAD):
                await Response(None, self.status_code, dict(self.headers))(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._file.content.close()
            self._on_close()


def validators(etag: str) -> dict[str, str]:
    """The headers by which a client asks whether what it has is still right."""
    return {"etag": f'"{etag}"', "cache-control": CACHED}


def unchanged(requested: Headers, etag: str) -> Response | None:
    """The answer to a client that has this already."""
    known = {tag.strip().removeprefix("W/") for tag in requested.get("if-none-match", "").split(",")}
    return Response(status_code=304, headers=validators(etag)) if f'"{etag}"' in known else None


def _requested_range(headers: Headers, etag: str, size: int) -> tuple[int, int] | None:
    """The first byte of the one range that is requested, and the one after its last; None for the whole."""
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-" or headers.get("if-range", etag) != etag:
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if start >= end:
        raise HTTPException(416, "The range lies outside of the file.", {"content-range": f"bytes */{size}"})
    return start, end


def _media_type(content: BinaryIO) -> str:
    """The media type of a file, which is read whole only where Pillow alone cannot tell it."""
    try:
        with Image.open(content) as image:
            found = Image.MIME.get(image.format or "", "application/octet-stream")
    except UnidentifiedImageError:
        found = ""
    # Of camera RAW, most kinds of which look like TIFF, and of what is read with an extra.
    if found in ("", "image/tiff"):
        content.seek(0)
        found = media_type(content.read())
    return found


def _open_local(path: str, max_size: int) -> BinaryIO:
    try:
        # Opening a pipe that has taken the file's place would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > max_size:
            os.close(descriptor)
            raise UnreadableImage(f"{path} is no regular file, or has more than {max_size:,} bytes")
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        raise UnreadableImage(f"cannot read {path}: {error.strerror or error}") from error


def _read(path: str, max_size: int) -> bytes:
    if "://" in path and "#" not in path:
        try:
            system, name = fs.FileSystem.from_uri(path)
            size = system.get_file_info(name).size
        except (OSError, ValueError) as error:
            raise UnreadableImage(f"cannot read {path}: {error}") from error
        if size is not None and size > max_size:
            raise UnreadableImage(f"{path} has {size:,} bytes, more than {max_size:,}")
    try:
        content = read_image(path)
    except DataError as error:
        raise UnreadableImage(str(error)) from error
    if len(content) > max_size:
        raise UnreadableImage(f"{path} has {len(content):,} bytes, more than {max_size:,}")
    return content
