"""Files of artefacts: written atomically, with full disks explained; JSON and parquet read with errors that help."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcip.core.errors import ArtefactError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What writers say that do not pass the operating system's error on: safetensors, then NumPy.
_NO_SPACE_WORDS = ("No space left", "File too large", "quota exceeded", "requested and")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends without an error, it takes the place of `path`.

    Raises:
        ArtefactError: The disk is full. What was at `path` before is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn an error in the block that comes of a full disk into an `ArtefactError` that says so, and names `path`."""
    try:
        yield
    except ArtefactError:
        raise
    except Exception as error:
        if not _is_for_lack_of_space(error):
            raise
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
        raise ArtefactError(
            f"The disk is full: could not write {path} ({free / 1e6:.0f} MB free). Nothing was lost: "
            "free some space, or choose another folder, and run the same command again."
        ) from error


def _is_for_lack_of_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if any(words in str(error) for words in _NO_SPACE_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files for `path` of processes that were killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = leftover.name.split(".")[-2].partition("-")[0]
        if process.isdecimal() and not is_running(int(process)):
            leftover.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this machine exists; Windows is not asked, where signal 0 would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtefactError: The file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"There is no file {path}.") from None
    except ValueError as error:
        raise ArtefactError(f"{path} is not valid JSON ({error}). Remove it and make it again.") from error


def read_parquet(path: str | Path) -> pa.Table:
    """Read a parquet file of an artefact.

    Raises:
        ArtefactError: The file is missing, cut off or damaged.
    """
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(
            f"{path} is missing, cut off or damaged ({error}). Remove its folder and run what makes it again."
        ) from error
