"""Reading files through `datasets` and its memory-mapped cache, quietly, and again when they change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from mcip.core.errors import DataError

# To be raised when the rows made from unchanged files change.
_VERSION = 1


def cached(make: Callable[[str, str], datasets.Dataset], files: list[Path], settings: str) -> datasets.Dataset:
    """Call `make(cache_dir, fingerprint)` with a cache folder for these very files in their present state.

    `datasets` goes by path and modification time alone. Here size, change time and inode count as well, so a file that
    was changed or replaced is read again.

    Raises:
        DataError: The files cannot be read, or the cache cannot be written.
    """
    key = hashlib.sha256(f"{_VERSION} {settings}".encode())
    for file in files:
        state = file.stat()
        facts = (str(file.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        key.update(repr(facts).encode())
    fingerprint = key.hexdigest()[:32]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "mcip" / fingerprint
    with quiet():
        try:
            return make(str(folder), fingerprint)
        except Exception as error:
            causes = list(_causes(error))
            for cause in causes:
                if isinstance(cause, DataError):
                    raise cause from None
            names = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
            raise DataError(f"cannot read {names} (into the cache {folder}): {causes[-1]}") from error


def generated(
    generate: Callable[[], Iterator[dict[str, Any]]], features: datasets.Features, files: list[Path], settings: str
) -> datasets.Dataset:
    """Write the rows that a generator makes of `files` to the cache, and map them into memory.

    Raises:
        DataError: The files cannot be read, the cache cannot be written, or there is not one row.
    """

    def at_least_one() -> Iterator[dict[str, Any]]:
        row = None
        for row in generate():
            yield row
        if row is None:
            raise DataError(f"{files[0] if len(files) == 1 else files[0].parent} has no rows")

    def make(cache_dir: str, fingerprint: str) -> datasets.Dataset:
        return datasets.Dataset.from_generator(
            at_least_one, features=features, cache_dir=cache_dir, fingerprint=fingerprint
        )

    return cached(make, files, settings)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep `datasets` from printing progress bars and log lines of its own."""
    shown = not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    if shown:
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if shown:
            datasets.enable_progress_bars()


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
