"""One writer at a time: the lock is the table's, whatever its place is called, and tells who holds it."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict
from pathlib import Path

import pytest

from mcip.core.errors import ArtefactError
from mcip.core.optional import module
from mcip.core.progress import console
from mcip.retrieval import lock as locks
from mcip.retrieval.lock import Holder, write_lock
from mcip.retrieval.table import open_table
from mcip.stages.index import index as build_index


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(console, "print", lambda text, **_: lines.append(text))
    return lines


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A table that is locked as one on object storage is."""
    monkeypatch.setattr(locks, "is_remote", lambda uri: True)
    monkeypatch.setattr(locks, "_POLL", 0.01)
    return str(tmp_path / "t.lance")


def test_two_runs_through_a_link_make_each_row_once(own_album: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    places = [tmp_path / "real" / "t.lance", tmp_path / "link" / "t.lance"]
    failures: list[BaseException] = []

    def run(place: Path) -> None:
        try:
            build_index(str(own_album), str(place), model=str(base), device="cpu", shard_rows=4)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert len(open_table(str(places[0]))) == 36
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["t.lance", "t.lance.search"]


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_the_second_says_who_holds_it_and_waits(
    kind: str, tmp_path: Path, printed: list[str], request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue("remote") if kind == "remote" else str(tmp_path / "t.lance")
    events: list[str] = []
    held, go = threading.Event(), threading.Event()

    def first() -> None:
        with write_lock(uri):
            held.set()
            go.wait(30)
            events.append("first ends")

    def second() -> None:
        with write_lock(uri):
            events.append("second begins")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert held.wait(30)
    threads[1].start()
    while not printed:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join(30)
    assert events == ["first ends", "second begins"]
    assert len(printed) == 1
    assert f"is being written to by process {os.getpid()} on {socket.gethostname()} since 20" in printed[0]


def test_of_many_on_object_storage_one_wins(remote: str, tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0
    counting = threading.Lock()

    def enter() -> None:
        nonlocal inside, most, entered
        with write_lock(remote):
            with counting:
                inside, entered = inside + 1, entered + 1
                most = max(most, inside)
            time.sleep(0.01)
            with counting:
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, entered) == (1, 8)


def _hold(uri: str, holder: Holder) -> None:
    with write_lock(uri):
        pass
    module("lance").dataset(f"{uri}/{locks._LOCK}").update_config({locks._KEY: json.dumps(asdict(holder))})


@pytest.mark.parametrize("how", ["killed", "lapsed"])
def test_a_dead_holder_is_taken_over(how: str, remote: str, tmp_path: Path, printed: list[str]) -> None:
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    assert process.pid is not None
    now = time.time()
    killed = Holder(process.pid, socket.gethostname(), uuid.getnode(), now, now + 600, "t")
    lapsed = Holder(1, "elsewhere", 1, now - 700, now - 100, "t")
    _hold(remote, killed if how == "killed" else lapsed)
    with write_lock(remote) as check:
        check()
    assert printed == []


def test_a_lock_that_was_lost_stops_the_writer(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "EXPIRY", 1.0)
    monkeypatch.setattr(locks, "_RENEWALS", 100)
    with write_lock(remote) as check:
        check()
        time.sleep(1.2)
        check()
        now = time.time()
        _hold_now(remote, Holder(7, "elsewhere", 1, now, now + 600, "other"))
        while time.time() < now + 30:
            try:
                check()
            except ArtefactError:
                break
            time.sleep(0.01)
        with pytest.raises(ArtefactError, match=r"was lost \(it is held by process 7 on elsewhere since"):
            check()
    assert json.loads(module("lance").dataset(f"{remote}/{locks._LOCK}").config()[locks._KEY])["token"] == "other"


def _hold_now(uri: str, holder: Holder) -> None:
    """Set the holder between two renewals."""
    lance = module("lance")
    while True:
        try:
            table = lance.dataset(f"{uri}/{locks._LOCK}")
            table.update_config({locks._KEY: json.dumps(asdict(holder))})
        except OSError:
            continue
        return


def test_a_place_that_cannot_be_written_to(tmp_path: Path, album: Path, base: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match=r"cannot be written to: .*Not a directory\. It can still be searched"):
        build_index(str(album), str(tmp_path / "file" / "t.lance"), model=str(base), device="cpu")
