"""Fetching released checkpoints, against servers on loopback that behave well and badly."""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from mcip import models
from mcip.core.errors import ModelError
from mcip.models import download
from mcip.models.download import RELEASED, fetch_released
from tests.limits import with_small_files

NAME = "mcip/ViT-L-14-336"
FILE = RELEASED[NAME].file
CONTENT = b"PK\x03\x04" + random.Random(0).randbytes(300_000)


@dataclass
class Site:
    """What the server holds and how it behaves."""

    content: bytes = CONTENT
    ranges: bool = True
    etag: str | None = '"one"'
    length: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    status: list[int] = field(default_factory=list)  # statuses of the next answers, instead of the file
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each request
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        site.asked.append((self.path, wanted))
        if site.status:
            self.send_error(site.status.pop(0))
            return
        same = self.headers.get("If-Range") in (None, site.etag)
        start = int(wanted[len("bytes=") : -1]) if wanted and site.ranges and same else None
        if start is not None and start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = site.content[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        if site.length:
            self.send_header("Content-Length", str(len(body)))
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        self.wfile.write(body[: site.cut_after.pop(0)] if site.cut_after else body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    monkeypatch.setattr(download, "_CHUNK", 8192)
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"site": site}))
    site.url = f"http://127.0.0.1:{server.server_port}/MCIP"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once_and_its_hash_recorded(site: Site, tmp_path: Path) -> None:
    path = fetch_released(NAME, tmp_path, site.url)
    assert path == tmp_path / FILE
    assert path.read_bytes() == CONTENT
    record = json.loads((tmp_path / f"{FILE}.json").read_text())
    assert record == {
        "url": f"{site.url}/{FILE}",
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    assert fetch_released(NAME, tmp_path, site.url) == path
    assert site.asked == [(f"/MCIP/{FILE}", None)]
    assert left(tmp_path) == [FILE, f"{FILE}.json", f"{FILE}.lock"]


def test_address_and_cache_come_from_the_environment(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCIP_RELEASES_URL", site.url + "/")
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path / "own"))
    assert fetch_released(NAME) == tmp_path / "own" / FILE
    monkeypatch.delenv("MCIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.default_cache() == tmp_path / "xdg" / "mcip"


@pytest.mark.parametrize("etag", ['"one"', 'W/"weak"', None])
def test_a_cut_off_connection_is_resumed(etag: str | None, site: Site, tmp_path: Path) -> None:
    site.etag = etag
    site.cut_after = [100_000, 50_000, 1]
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_after_giving_up_the_next_call_goes_on(site: Site, tmp_path: Path) -> None:
    site.cut_after = [100_000, *[0] * 4]
    with pytest.raises(ModelError, match=r"100,000 bytes are kept in .*run it again and it goes on"):
        fetch_released(NAME, tmp_path, site.url)
    assert (tmp_path / f"{FILE}.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / FILE).exists()
    site.asked.clear()
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == ["bytes=100000-"]


def test_a_whole_part_that_was_not_renamed_yet_is_taken(site: Site, tmp_path: Path) -> None:
    site.cut_after = [100_000, *[0] * 4]
    with pytest.raises(ModelError):
        fetch_released(NAME, tmp_path, site.url)
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT)
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


@pytest.mark.parametrize("junk", [b"PK\x03\x04", CONTENT + b"more", b""])
def test_a_part_of_unknown_origin_is_not_trusted(junk: bytes, site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(junk)
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_over(site: Site, tmp_path: Path) -> None:
    site.cut_after = [100_000, *[0] * 4]
    with pytest.raises(ModelError):
        fetch_released(NAME, tmp_path, site.url)
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT + b"more")
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


def test_a_server_that_ignores_range_starts_over(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.cut_after = [100_000, 200_000]
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_that_ignores_range_and_always_cuts_is_given_up(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.cut_after = [100_000] * 20
    with pytest.raises(ModelError, match="run it again"):
        fetch_released(NAME, tmp_path, site.url)
    assert len(site.asked) == 5


@pytest.mark.parametrize("etags", [('"one"', '"two"'), (None, None)])
def test_a_file_that_changes_during_the_fetch_is_not_mixed(
    etags: tuple[str | None, str | None], site: Site, tmp_path: Path
) -> None:
    site.etag = etags[0]
    site.cut_after = [100_000, *[0] * 4]
    with pytest.raises(ModelError):
        fetch_released(NAME, tmp_path, site.url)
    site.content = b"PK\x03\x04" + bytes(250_000)
    site.etag = etags[1]
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == site.content


def test_without_a_length_the_end_of_the_answer_is_the_end(site: Site, tmp_path: Path) -> None:
    site.length = False
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


def test_errors_of_the_server(site: Site, tmp_path: Path) -> None:
    site.status = [404]
    with pytest.raises(ModelError, match=r"answered 404 Not Found.*MCIP_RELEASES_URL"):
        fetch_released(NAME, tmp_path, site.url)
    assert len(site.asked) == 1
    site.status = [503, 500]
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


def test_no_server_at_all(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Could not fetch http://127.0.0.1:9/"):
        fetch_released(NAME, tmp_path, "http://127.0.0.1:9")


def test_a_page_instead_of_a_checkpoint_is_refused(site: Site, tmp_path: Path) -> None:
    site.content = b"<html>moved</html>"
    with pytest.raises(ModelError, match="is not a checkpoint"):
        fetch_released(NAME, tmp_path, site.url)
    site.content = CONTENT
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"?", CONTENT + b"?"])
def test_a_damaged_file_is_an_error(damage: bytes, site: Site, tmp_path: Path) -> None:
    path = fetch_released(NAME, tmp_path, site.url)
    path.write_bytes(damage)
    with pytest.raises(ModelError, match=r"not the file that was first used \(.*sha256 .*remove it and run this again"):
        fetch_released(NAME, tmp_path, site.url)
    path.unlink()
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_an_error(site: Site, tmp_path: Path) -> None:
    path = fetch_released(NAME, tmp_path, site.url)
    path.unlink()
    site.content = CONTENT[:-1] + b"?"
    with pytest.raises(ModelError, match=r"It was changed at .*remove .*\.json too"):
        fetch_released(NAME, tmp_path, site.url)
    site.content = CONTENT + b"?"
    with pytest.raises(ModelError, match=r"is now 300,005 bytes; 300,004 were recorded"):
        fetch_released(NAME, tmp_path, site.url)
    (tmp_path / f"{FILE}.json").unlink()
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == site.content


def test_a_file_put_there_by_hand_is_taken_and_recorded(site: Site, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(CONTENT)
    fetch_released(NAME, tmp_path, site.url)
    assert json.loads((tmp_path / f"{FILE}.json").read_text())["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert site.asked == []


def test_progress_is_shown_and_goes_on_from_what_was_there(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(download, "console", Console(file=shown, force_terminal=True, width=120))
    site.cut_after = [100_000]
    fetch_released(NAME, tmp_path, site.url)
    first, _, second = shown.getvalue().partition("100.0/300.0 kB")
    assert f"fetch {FILE}" in first
    assert "300.0/300.0 kB" in second


def test_a_full_disk_is_named_and_the_fetch_goes_on_when_there_is_room(site: Site, tmp_path: Path) -> None:
    message = with_small_files(100_000, fetch_released, NAME, tmp_path, site.url)
    assert message.startswith(f"The disk is full: could not write {tmp_path / FILE}.part")
    assert len(site.asked) == 1
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT
    assert site.asked[-1][1] == "bytes=100000-"


def test_two_at_once_fetch_it_once(site: Site, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch_released, args=(NAME, tmp_path, site.url)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / FILE).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no released checkpoint 'mcip/none'. There are: mcip/ViT-L-14-336, "):
        fetch_released("mcip/none")


def test_load_fetches_and_fits_a_released_checkpoint(
    tiny_config: dict[str, Any], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models.from_config(tiny_config, seed=4)
    base = models.save(source, tmp_path / "base")
    tuned = models.from_config(tiny_config, seed=5)
    torch.save(tuned.clip.state_dict(), tmp_path / "tuned.pth")
    site.content = (tmp_path / "tuned.pth").read_bytes()
    monkeypatch.setitem(RELEASED, "mcip/tiny", download.Released("tiny.pth", str(base)))
    monkeypatch.setenv("MCIP_RELEASES_URL", site.url)
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path / "cache"))
    loaded = models.load("mcip/tiny")
    assert loaded.fingerprint == tuned.fingerprint
    assert loaded.source == "mcip/tiny"
