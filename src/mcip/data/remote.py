"""Files on object storage or another machine: found by URI, told apart by ETag, size and time, read as streams."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import IO, Any, Final

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.arrow import ArrowFSWrapper  # type: ignore[import-untyped]
from pyarrow import fs

from mcip.core.errors import DataError, UnreadableImage

# What file systems call that which changes with a file's contents, the surest first.
_VERSION_KEYS: Final = ("ETag", "etag", "md5", "md5Hash", "content_md5", "crc32c", "generation", "VersionId")
_TIME_KEYS: Final = ("LastModified", "last_modified", "mtime", "updated", "modified")


@dataclass(frozen=True)
class RemoteFile:
    """A file by its URI.

    Attributes:
        uri: For example "s3://bucket/train.parquet".
        path: The same for its file system.
        version: Changes when the contents do.
    """

    uri: str
    path: str
    version: str
    filesystem: Any

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    def open(self) -> IO[bytes]:
        """Open it for reading, with random access."""
        stream: IO[bytes] = self.filesystem.open(self.path, "rb")
        return stream


def filesystem_of(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it; Arrow's own where no fsspec one is installed.

    Raises:
        DataError: There is none for this scheme, or it cannot be reached.
    """
    try:
        try:
            filesystem, path = fsspec.core.url_to_fs(uri)
        except ImportError:
            arrow, path = fs.FileSystem.from_uri(uri)
            filesystem = ArrowFSWrapper(arrow)
    except Exception as error:  # each file system raises errors of its own
        raise DataError(f"{uri} cannot be opened: {error}") from error
    return filesystem, path


def read_object(uri: str) -> bytes:
    """The contents of an image on object storage.

    Raises:
        UnreadableImage: It is gone, or cannot be read.
    """
    try:
        filesystem, path = filesystem_of(uri)
        content: bytes = filesystem.cat_file(path)
    except FileNotFoundError:
        raise UnreadableImage(f"no object {uri}") from None
    except Exception as error:  # each file system raises errors of its own
        raise UnreadableImage(f"cannot read {uri}: {error}") from error
    return content


def remote_files(uri: str) -> list[RemoteFile]:
    """The file of a URI, or all files below it.

    Raises:
        DataError: There are none, or they cannot be listed.
    """
    filesystem, path = filesystem_of(uri)
    # What stands before and behind the path, such as the endpoint of a store.
    before, _, behind = uri.partition(path) if path and path in uri else (uri.partition("://")[0] + "://", "", "")
    try:
        filesystem.invalidate_cache()
        facts = filesystem.info(path)
        found = {path: facts} if facts["type"] == "file" else filesystem.find(path, detail=True)
        files = [
            RemoteFile(before + name + behind, name, _version(filesystem, name, facts), filesystem)
            for name, facts in sorted(found.items())
        ]
    except FileNotFoundError:
        raise DataError(f"there is no {uri}") from None
    except Exception as error:  # each file system raises errors of its own
        raise DataError(f"{uri} cannot be listed: {error}") from error
    if not files:
        raise DataError(f"{uri} holds no files")
    return files


def _version(filesystem: Any, path: str, facts: dict[str, Any]) -> str:
    """What changes when the file does: its ETag or time, with its size; a hash of the contents where it has neither."""
    for key in (*_VERSION_KEYS, *_TIME_KEYS):
        if (value := facts.get(key)) and not _is_recent(value):
            return f"{key} {value} {facts.get('size')}"
    with filesystem.open(path, "rb") as stream:
        return f"contents {hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _is_recent(value: object) -> bool:
    """Whether this is a time at which another change may still come, as stores count in whole seconds."""
    if not isinstance(value, datetime):
        return False
    zone = value.tzinfo or UTC
    return datetime.now(UTC) - value.replace(tzinfo=zone) < timedelta(seconds=2)
