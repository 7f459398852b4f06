"""Reading tars from anywhere: whole or refused, in bounded memory, with the sizes that they state checked first."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from mcip.core.errors import DataError
from mcip.data.walk import is_hidden

# No image of a table, and no header of a tar, is larger than this on purpose.
MAX_MEMBER_BYTES: Final = 512 * 2**20
# Images do not become much smaller by compression. What unpacks to more than this many times its size is a bomb.
_MAX_RATIO: Final = 200
_FREE_BYTES: Final = 256 * 2**20
_BLOCK: Final = 512
_OPENERS: Final[dict[bytes, Callable[[IO[bytes]], Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class TarMember:
    """A file in a tar: its name, its stated size, and its contents where they are needed."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo, file: Path) -> None:
        self._archive = archive
        self._info = info
        self._file = file
        # Names that are not UTF-8 are shown with escapes, which keep them apart.
        encoded = info.name.encode("utf-8", "surrogateescape")
        self.name = encoded.decode("utf-8", "backslashreplace")

    def read(self, limit: int = MAX_MEMBER_BYTES) -> bytes:
        """The contents.

        Raises:
            DataError: It states more than `limit` bytes, or the tar ends before it does.
        """
        if self._info.size > limit:
            raise DataError(
                f"{self._file.name}: the member {self.name} states {self._info.size:,} bytes; "
                f"at most {limit:,} are read"
            )
        with _errors(self._file):
            stream = self._archive.extractfile(self._info)
            content = stream.read() if stream is not None else b""
            if len(content) != self._info.size:
                raise EOFError(f"the member {self.name} is not whole")
        return content


def tar_members(file: Path) -> Iterator[TarMember]:
    """The regular files of a tar in order, without hidden ones; each is to be read before the next is taken.

    Raises:
        DataError: It is no tar, is damaged or cut off, or unpacks to far more than its size.
    """
    with (
        _errors(file),
        file.open("rb") as raw,
        _unpacked(raw, file) as stream,
        tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive,
    ):
        for info in archive:
            vars(archive)["members"] = []  # else the list of members grows with the archive
            if info.size < 0:
                raise tarfile.ReadError(f"the member {info.name} states a negative size")
            if info.isfile() and not any(is_hidden(part) for part in info.name.split("/") if part not in ("", ".")):
                yield TarMember(archive, info, file)
        # Python's reader takes a header that is cut off or damaged for the end.
        stream.seek(archive.offset)
        if stream.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError(f"its end is missing at byte {archive.offset:,}")
        # Reading on also checks the checksum of what was unpacked.
        while rest := stream.read(_BLOCK * _BLOCK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"more follows its end at byte {archive.offset:,}, perhaps another tar")


@contextmanager
def _errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{file} is no tar file, damaged or cut off: {error}") from error


@contextmanager
def _unpacked(raw: IO[bytes], file: Path) -> Iterator[_Bounded]:
    start = raw.read(6)
    raw.seek(0)
    size = file.stat().st_size
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        yield _Bounded(raw, None, file)
        return
    with opener(raw) as unpacked:
        yield _Bounded(unpacked, _MAX_RATIO * size + _FREE_BYTES, file)


class _Bounded:
    """A stream that reads bounded pieces, up to a bounded position."""

    def __init__(self, stream: IO[bytes], end: int | None, file: Path) -> None:
        self.stream = stream
        self.end = end
        self.file = file

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise DataError(f"{self.file}: a header states {size:,} bytes; it is damaged or made to fill the memory")
        self._check(self.tell() + size)
        return self.stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        """Move to a position from the start."""
        self._check(position)
        return self.stream.seek(position, whence)

    def tell(self) -> int:
        """The position."""
        return self.stream.tell()

    def _check(self, position: int) -> None:
        if self.end is not None and position > self.end:
            raise DataError(f"{self.file} unpacks to more than {_MAX_RATIO} times its size: it is taken for a bomb")
