"""An index that follows its folders until it is stopped."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from mcip.core.errors import ConfigError
from mcip.retrieval.table import open_table
from mcip.stages import index_watch
from mcip.stages.index import index as build_index
from tests.images import file_bytes, noise_image

pytest.importorskip("watchfiles")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_watch, "_QUIET", 50)
    monkeypatch.setattr(index_watch, "_TICK", 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for number in range(3):
        (folder / "a" / f"{number}.jpg").write_bytes(file_bytes(noise_image(seed=number), "JPEG"))
    return folder


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_changes_are_followed_and_mistakes_survived(
    number: signal.Signals,
    quick: None,
    folder: Path,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The index lies in the folder that it is of, and its own files do not wake it.
    db = folder / "photos.lance"
    failures: list[BaseException] = []
    notes: list[str] = []
    monkeypatch.setattr("mcip.stages.index_update.note", notes.append)

    def rows() -> set[str]:
        return set(open_table(str(db)).read(["id"])["id"].to_pylist())

    def change() -> None:
        try:
            until(lambda: any("Watching" in text for text in notes))
            lock = FileLock(f"{db}.search/writer.lock")
            until(lambda: sum("embedded in" in text for text in notes) >= 2)
            with lock.acquire(timeout=10):
                pass
            (folder / "b").mkdir()
            (folder / "b" / "new.jpg").write_bytes(file_bytes(noise_image(seed=9), "JPEG"))
            until(lambda: "b/new.jpg" in rows())
            shutil.move(folder / "a", tmp_path / "unmounted")
            until(lambda: any("could not be updated" in text for text in notes))
            assert len(rows()) == 4
            shutil.move(tmp_path / "unmounted", folder / "a")
            (folder / "a" / "0.jpg").rename(folder / "a" / "renamed.jpg")
            until(lambda: "a/renamed.jpg" in rows() and "a/0.jpg" not in rows())
            time.sleep(0.5)
            seen = len(notes)
            time.sleep(0.5)
            assert len(notes) == seen
        except BaseException as error:
            failures.append(error)
        finally:
            os.kill(os.getpid(), number)

    helper = threading.Thread(target=change)
    helper.start()
    before = signal.getsignal(signal.SIGTERM)
    indexed = build_index(str(folder), str(db), model=str(base), device="cpu", watch=True)
    helper.join()
    assert failures == []
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(indexed.index) == 4
    assert notes[-1] == "Stopped watching; the index is whole."
    assert any("all images of these folders are" in text for text in notes)


def test_what_cannot_be_watched(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/photos is not on this machine's disks"):
        build_index("s3://bucket/photos", str(tmp_path / "t.lance"), model=str(base), watch=True)
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"pip install 'mcip\[photos\]'"):
        build_index(str(tmp_path), str(tmp_path / "t.lance"), model=str(base), watch=True)
