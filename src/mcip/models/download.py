"""The authors' released checkpoints, fetched once, their hash recorded at first use and checked at every later one."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mcip.core.errors import ModelError
from mcip.core.files import explain_full_disk, read_json, write_json
from mcip.core.hashes import sha256
from mcip.core.locks import exclusive
from mcip.core.progress import console

BASE_URL: Final = "https://visual-computing.com/files/MCIP/"
_URL_VARIABLE: Final = "MCIP_RELEASES_URL"
_CACHE_VARIABLE: Final = "MCIP_CACHE"
_CHUNK: Final = 1 << 20
# To connect, and between two pieces.
_TIMEOUT_S: Final = (5.0, 30.0)
# The larger one has 3.5 GB.
_MAX_BYTES: Final = 8_000_000_000
# What files of torch.save begin with: a zip archive, or a pickle where they are old.
_MAGIC: Final = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class Released:
    """A released checkpoint: its file, and the open_clip name and tag of the model it was tuned from."""

    file: str
    base: str


RELEASED: Final = {
    "mcip/ViT-L-14-336": Released("MCIP-ViT-L-14-336.pth", "ViT-L-14-336/openai"),
    "mcip/ViT-SO400M-14-SigLIP-384": Released("MCIP-ViT-SO400M-14-SigLIP-384.pth", "ViT-SO400M-14-SigLIP-384/webli"),
}


def fetch_released(name: str, cache_dir: str | Path | None = None, base_url: str | None = None) -> Path:
    """Give the path of a released checkpoint, fetching it where the cache lacks it or holds a damaged one.

    The SHA-256 is recorded beside the file (`<file>.json`) at first use.

    Args:
        name: "mcip/ViT-L-14-336" or "mcip/ViT-SO400M-14-SigLIP-384".
        cache_dir: Where files are kept; else `$MCIP_CACHE`, else `mcip` in the user's cache folder.
        base_url: The address they lie under; else `$MCIP_RELEASES_URL`, else the authors' own.

    Raises:
        ModelError: The name is unknown, the file cannot be had, or it is not the one that was first used.
        ArtefactError: The disk is full.
    """
    if name not in RELEASED:
        raise ModelError(f"There is no released checkpoint {name!r}. There are: {', '.join(RELEASED)}.")
    file = RELEASED[name].file
    url = released_url(file, base_url)
    path = (Path(cache_dir) if cache_dir else default_cache()) / file
    record = path.with_name(f"{file}.json")
    if path.exists() and _recorded(record) == sha256(path):  # without writing: a cache may be only readable
        return path
    with exclusive(path, "is fetching"), explain_full_disk(path):
        known = _recorded(record)
        _fetch(url, path, known, record)
        if known is None:
            _check_kind(path, url)
            write_json(record, {"url": url, "size": path.stat().st_size, "sha256": sha256(path)})
    return path


def released_url(file: str, base_url: str | None = None) -> str:
    """The address of a released file under `base_url`, else `$MCIP_RELEASES_URL`, else the authors' own."""
    return f"{(base_url or os.environ.get(_URL_VARIABLE) or BASE_URL).rstrip('/')}/{file}"


def default_cache() -> Path:
    """The folder in which fetched files are kept: `$MCIP_CACHE`, else `mcip` in the user's cache folder."""
    import pooch  # type: ignore[import-untyped]

    return Path(os.environ.get(_CACHE_VARIABLE) or pooch.os_cache("mcip"))


def _recorded(record: Path) -> str | None:
    return str(read_json(record)["sha256"]) if record.exists() else None


def _fetch(url: str, path: Path, sha256: str | None, record: Path) -> None:
    """Fetch `url` to `path` atomically, unless a file with this hash, or any where none is known, is there."""
    # Imported here, since requests takes a while and few names are fetched from a site.
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    with _Bar(path.name) as bar:
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, timeout=_TIMEOUT_S)
        try:
            pooch.retrieve(url, sha256, fname=path.name, path=path.parent, downloader=downloader)
        except requests.HTTPError as error:
            raise ModelError(
                f"{error}. Check the address, or set {_URL_VARIABLE} to where the files lie now."
            ) from error
        except requests.RequestException as error:
            raise ModelError(
                f"Could not fetch {url}: {error}. Run it again where there is a network; where there is none, fetch "
                f"the file elsewhere and put it at {path}."
            ) from error
        except ValueError as error:  # the hash is another one
            raise ModelError(
                f"{url} is not the file that was first used: it was changed there. "
                f"To accept the new file, remove {record}."
            ) from error


def _check_kind(path: Path, url: str) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith(_MAGIC):
        path.unlink()
        raise ModelError(f"What came from {url} is not a checkpoint. It was removed; check the address.")


class _Bar:
    """The progress bar that pooch moves. It ends a download that is larger than it may be."""

    def __init__(self, title: str) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console)
        self._title = title

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    @property
    def total(self) -> int:
        """The size that the server states in bytes, 0 where it states none."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._check(size)
        self._total = size
        self._bar.start()
        self._task = self._bar.add_task(f"fetch {self._title}", total=size or None)

    def update(self, amount: int) -> None:
        """Move on by some bytes."""
        self._bar.update(self._task, advance=amount)
        self._check(int(self._bar.tasks[self._task].completed))

    def reset(self) -> None:
        """Go back to the start."""
        self._bar.reset(self._task)

    def close(self) -> None:
        """Nothing: the bar stops with its block."""

    def _check(self, size: int) -> None:
        if size > _MAX_BYTES:
            raise ModelError(f"{self._title} has more than {_MAX_BYTES:,} bytes: it is not a released checkpoint.")
