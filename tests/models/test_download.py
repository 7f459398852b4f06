"""Fetching released checkpoints, against servers on loopback that behave well and badly."""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
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
from tests.models.site import serving

NAME = "mcip/ViT-L-14-336"
FILE = RELEASED[NAME].file
CONTENT = b"PK\x03\x04" + random.Random(0).randbytes(300_000)


@dataclass
class Site:
    """What the server holds and how it behaves."""

    content: bytes = CONTENT
    length: int | None = len(CONTENT)  # as the header states it
    status: int = 200
    requests: list[str] = field(default_factory=list)  # the path of each
    url: str = ""

    def hold(self, content: bytes) -> None:
        self.content, self.length = content, len(content)


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        self.site.requests.append(self.path)
        if self.site.status != 200:
            self.send_error(self.site.status)
            return
        self.send_response(200)
        if self.site.length is not None:
            self.send_header("Content-Length", str(self.site.length))
        self.end_headers()
        self.wfile.write(self.site.content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_CHUNK", 8192)
    site = Site()
    with serving(type("SiteHandler", (Handler,), {"site": site})) as address:
        site.url = f"{address}/MCIP"
        yield site


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
    assert site.requests == [f"/MCIP/{FILE}"]
    assert left(tmp_path) == [FILE, f"{FILE}.json"]


def test_a_cache_that_can_only_be_read_is_enough(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch_released(NAME, tmp_path, site.url)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(download, "exclusive", refuse)
    monkeypatch.setattr(download, "write_json", refuse)
    assert fetch_released(NAME, tmp_path, site.url) == path


def test_address_and_cache_come_from_the_environment(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCIP_RELEASES_URL", site.url + "/")
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path / "cache"))
    assert fetch_released(NAME) == tmp_path / "cache" / FILE
    monkeypatch.delenv("MCIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.default_cache() == tmp_path / "xdg" / "mcip"


def test_a_cut_off_connection_leaves_nothing_and_the_next_run_fetches_it(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT[:100_000]
    with pytest.raises(ModelError, match=r"Could not fetch .*Run it again"):
        fetch_released(NAME, tmp_path, site.url)
    assert left(tmp_path) == []
    site.hold(CONTENT)
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


def test_without_a_length_the_end_of_the_answer_is_the_end(site: Site, tmp_path: Path) -> None:
    site.length = None
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


@pytest.mark.parametrize("stated", [True, False])
def test_a_download_larger_than_any_checkpoint_is_ended(
    stated: bool, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stated:
        site.length = 9_000_000_000
    else:
        site.length = None
        monkeypatch.setattr(download, "_MAX_BYTES", 200_000)
    with pytest.raises(ModelError, match=rf"{FILE} has more than [\d,]+ bytes: it is not a released checkpoint"):
        fetch_released(NAME, tmp_path, site.url)
    assert left(tmp_path) == []


def test_errors_of_the_server(site: Site, tmp_path: Path) -> None:
    site.status = 404
    with pytest.raises(ModelError, match=r"404 .*Not Found for url: .*pth. Check the address.*MCIP_RELEASES_URL"):
        fetch_released(NAME, tmp_path, site.url)
    assert len(site.requests) == 1


def test_no_server_at_all(site: Site, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"Could not fetch http://127.0.0.1:9/.*fetch the file elsewhere and put it at .*pth"
    ):
        fetch_released(NAME, tmp_path, "http://127.0.0.1:9")


def test_a_page_instead_of_a_checkpoint_is_refused(site: Site, tmp_path: Path) -> None:
    site.hold(b"<html>moved</html>")
    with pytest.raises(ModelError, match="is not a checkpoint"):
        fetch_released(NAME, tmp_path, site.url)
    assert left(tmp_path) == []
    site.hold(CONTENT)
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"?", CONTENT + b"?"])
def test_a_damaged_file_is_fetched_again(damage: bytes, site: Site, tmp_path: Path) -> None:
    path = fetch_released(NAME, tmp_path, site.url)
    path.write_bytes(damage)
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT
    assert len(site.requests) == 2


def test_a_file_that_changed_on_the_server_is_an_error(site: Site, tmp_path: Path) -> None:
    path = fetch_released(NAME, tmp_path, site.url)
    path.unlink()
    site.hold(CONTENT + b"?")
    with pytest.raises(ModelError, match=r"is not the file that was first used: it was changed there.*remove .*\.json"):
        fetch_released(NAME, tmp_path, site.url)
    assert not path.exists()
    (tmp_path / f"{FILE}.json").unlink()
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == site.content


def test_a_file_put_there_by_hand_is_taken_and_recorded(site: Site, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(CONTENT)
    fetch_released(NAME, tmp_path, site.url)
    assert json.loads((tmp_path / f"{FILE}.json").read_text())["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert site.requests == []


def test_progress_is_shown(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(download, "console", Console(file=shown, force_terminal=True, width=120))
    fetch_released(NAME, tmp_path, site.url)
    assert f"fetch {FILE}" in shown.getvalue()
    assert "300.0/300.0 kB" in shown.getvalue()


def test_a_full_disk_is_named(site: Site, tmp_path: Path) -> None:
    message = with_small_files(100_000, fetch_released, NAME, tmp_path, site.url)
    assert message.startswith(f"The disk is full: could not write {tmp_path / FILE}")
    assert fetch_released(NAME, tmp_path, site.url).read_bytes() == CONTENT


def test_two_at_once_fetch_it_once(site: Site, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch_released, args=(NAME, tmp_path, site.url)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / FILE).read_bytes() == CONTENT
    assert len(site.requests) == 1


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
    site.hold((tmp_path / "tuned.pth").read_bytes())
    monkeypatch.setitem(RELEASED, "mcip/tiny", download.Released("tiny.pth", str(base)))
    monkeypatch.setenv("MCIP_RELEASES_URL", site.url)
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path / "cache"))
    loaded = models.load("mcip/tiny")
    assert loaded.fingerprint == tuned.fingerprint
    assert loaded.source == "mcip/tiny"
