"""The authors' released checkpoints, fetched once: resumed after a cut, their hash recorded and checked."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mcip.core.artefacts import explain_full_disk, read_json, write_json
from mcip.core.errors import ModelError
from mcip.core.hashes import file_hash
from mcip.core.progress import console

BASE_URL: Final = "https://visual-computing.com/files/MCIP/"
_URL_VARIABLE: Final = "MCIP_RELEASES_URL"
_CACHE_VARIABLE: Final = "MCIP_CACHE"
_CHUNK: Final = 1 << 20
_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 4
_PAUSE_S: Final = 0.5
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
    """Give the path of a released checkpoint, fetching what is not in the cache yet.

    A fetch that was cut off goes on where it stopped. The SHA-256 is recorded beside the file (`<file>.json`) at first
    use and checked at every later one.

    Args:
        name: "mcip/ViT-L-14-336" or "mcip/ViT-SO400M-14-SigLIP-384".
        cache_dir: Where files are kept; else `$MCIP_CACHE`, else `mcip` in the user's cache folder.
        base_url: The address they lie under; else `$MCIP_RELEASES_URL`, else the authors' own.

    Raises:
        ModelError: The name is unknown, the file cannot be had, or it is not the one that was first used.
        ArtefactError: The disk is full. What has been fetched is kept.
    """
    if name not in RELEASED:
        raise ModelError(f"There is no released checkpoint {name!r}. There are: {', '.join(RELEASED)}.")
    file = RELEASED[name].file
    url = f"{(base_url or os.environ.get(_URL_VARIABLE) or BASE_URL).rstrip('/')}/{file}"
    path = (Path(cache_dir) if cache_dir else default_cache()) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_process(path):
        if path.exists():
            _check(path, path, url)
        else:
            part = _beside(path, ".part")
            _download(url, part, expected=_recorded(path).get("size"))
            _check(part, path, url)
            part.replace(path)
            _beside(part, ".json").unlink(missing_ok=True)
    return path


def default_cache() -> Path:
    """The folder in which fetched files are kept: `$MCIP_CACHE`, else `mcip` in the user's cache folder."""
    if own := os.environ.get(_CACHE_VARIABLE):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcip"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _recorded(path: Path) -> dict[str, Any]:
    record = _beside(path, ".json")
    return dict(read_json(record)) if record.exists() else {}


def _check(file: Path, path: Path, url: str) -> None:
    """Compare `file`, which is or will be at `path`, with what was recorded at first use; record it if this is it."""
    with file.open("rb") as opened:
        if not opened.read(4).startswith(_MAGIC):
            file.unlink()
            raise ModelError(f"What came from {url} is not a checkpoint. It was removed; check the address.")
    found = {"size": file.stat().st_size, "sha256": file_hash(file)}
    known = _recorded(path)
    if not known:
        write_json(_beside(path, ".json"), {"url": url, **found})
        return
    differing = [f"{key} {known[key]} recorded, {found[key]} found" for key in found if known.get(key) != found[key]]
    if differing:
        if file != path:
            file.unlink()
        raise ModelError(
            f"{path} is not the file that was first used ({'; '.join(differing)}). "
            + ("It is damaged or was replaced: remove it and" if file == path else f"It was changed at {url}:")
            + f" run this again; to accept another file, remove {_beside(path, '.json')} too."
        )


def _download(url: str, part: Path, expected: int | None) -> None:
    """Fetch `url` into `part`, going on from what is there; give up after some attempts without progress."""
    furthest, failures, reason = _size(part), 0, "the connection ended early"
    while failures < _ATTEMPTS:
        try:
            if _go_on(url, part, expected):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise ModelError(
                    f"{url} answered {error.code} {error.reason}. Check the address, "
                    f"or set {_URL_VARIABLE} to where the files lie now."
                ) from error
            reason = f"the server answered {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        failures = 0 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures and failures < _ATTEMPTS:
            time.sleep(_PAUSE_S * 2**failures)
    raise ModelError(
        f"Could not fetch {url}: {reason}. {_size(part):,} bytes are kept in {part}: "
        "run it again and it goes on from there."
    )


def _go_on(url: str, part: Path, expected: int | None) -> bool:
    """Ask for what `part` lacks and append it. Returns whether the file is whole now."""
    notes = _beside(part, ".json")
    before = _recorded(part)
    if before.get("url") != url:
        part.unlink(missing_ok=True)
        before = {}
    start = _size(part)
    headers = {"User-Agent": "mcip"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if before.get("validator"):
            headers["If-Range"] = before["validator"]
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        whole = _total(error.headers, 0) == start
        if not whole:
            part.unlink()
        return whole
    with response:
        if response.status != 206:
            start = 0
        total = _total(response.headers, start)
        if start and (_first_byte(response.headers) != start or total != before.get("total")):
            part.unlink()
            return False
        if expected is not None and total is not None and total != expected:
            raise ModelError(
                f"{url} is now {total:,} bytes; {expected:,} were recorded when it was first used. It was changed: "
                f"to accept the new file, remove {part.with_suffix('.json')}."
            )
        if not start:
            part.unlink(missing_ok=True)  # before the notes change: an old part under new notes would be gone on with
        write_json(notes, {"url": url, "total": total, "validator": _validator(response.headers)})
        _append(response, part, start, total)
    return total is None or _size(part) == total


def _append(response: IO[bytes], part: Path, start: int, total: int | None) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console)
    with explain_full_disk(part), bar, part.open("ab" if start else "wb") as file:
        task = bar.add_task(f"fetch {part.stem}", total=total, completed=start)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(task, advance=len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _total(headers: Message, start: int) -> int | None:
    """The size of the whole file in bytes, from the headers of an answer that begins at `start`."""
    if found := re.search(r"/(\d+)$", headers.get("Content-Range", "")):
        return int(found[1])
    length = headers.get("Content-Length")
    return None if length is None else start + int(length)


def _first_byte(headers: Message) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _validator(headers: Message) -> str | None:
    """What If-Range may name: a strong entity tag, or else the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


@contextlib.contextmanager
def _only_process(path: Path) -> Iterator[None]:
    """Let one process at a time fetch `path`; the others wait."""
    with _beside(path, ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"Waiting for another process that fetches {path.name}.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
