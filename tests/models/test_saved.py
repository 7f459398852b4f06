"""Saving: what is replaced and what is kept, several processes at one folder, and the objects that stand for paths."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mcip import models
from mcip.core.errors import ArtefactError, ModelError
from mcip.core.hashes import hash_file
from mcip.core.locks import exclusive
from mcip.core.progress import console
from mcip.models import Model, SavedModel
from tests.tiny import CONFIG


def test_saving_again_replaces_the_folder_and_leaves_nothing_behind(
    tiny_config: dict[str, Any], tiny: Model, tiny_folder: Path
) -> None:
    other = models.from_config(tiny_config, seed=4)
    models.save(other, tiny_folder)
    assert models.load(tiny_folder).fingerprint == other.fingerprint != tiny.fingerprint
    assert list(tiny_folder.parent.iterdir()) == [tiny_folder]


def test_a_folder_with_other_things_is_not_replaced(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ModelError, match="does not hold a model"):
        models.save(tiny, tmp_path)
    with pytest.raises(ModelError, match="does not hold a model"):
        models.save(tiny, tmp_path / "notes.txt")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not hold a model"):
        models.save(tiny, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "keep me"


def test_a_full_disk_leaves_the_old_model_whole(
    tiny_config: dict[str, Any], tiny: Model, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mcip.models.saved.save_file", full)
    with pytest.raises(ArtefactError, match="disk is full"):
        models.save(models.from_config(tiny_config, seed=9), tiny_folder)
    assert models.load(tiny_folder).fingerprint == tiny.fingerprint
    assert list(tiny_folder.parent.iterdir()) == [tiny_folder]


def test_a_link_to_a_folder_stays_a_link(tiny: Model, tiny_config: dict[str, Any], tmp_path: Path) -> None:
    folder, link = models.save(tiny, tmp_path / "deep" / "model"), tmp_path / "link"
    link.symlink_to(folder)
    other = models.from_config(tiny_config, seed=4)
    assert models.save(other, link) == link
    assert link.is_symlink()
    assert models.load(folder).fingerprint == other.fingerprint


@pytest.mark.parametrize("moment", ["old moved away", "new in place"])
def test_a_process_killed_while_it_replaces_loses_no_model(
    moment: str, tiny: Model, tiny_config: dict[str, Any], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    other = models.from_config(tiny_config, seed=4)
    rename, calls = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == (2 if moment == "old moved away" else 3):
            raise Killed
        return rename(self, target)

    def rmtree(path: Path, **_: object) -> None:
        if path.exists():
            raise Killed

    monkeypatch.setattr(Path, "rename", killed)
    if moment == "new in place":
        monkeypatch.setattr("shutil.rmtree", rmtree)
    with pytest.raises(Killed):
        models.save(other, tiny_folder)
    monkeypatch.undo()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mcip.models.saved.save_file", full)
    with pytest.raises(ArtefactError):
        models.save(other, tiny_folder)
    expected = tiny if moment == "old moved away" else other
    assert models.load(tiny_folder).fingerprint == expected.fingerprint
    assert list(tiny_folder.parent.iterdir()) == [tiny_folder]


def _save_over_and_over(seed: int, folders: list[Path], barrier: Any) -> None:
    model = models.from_config(CONFIG, seed=seed)
    barrier.wait()
    for folder in folders:
        models.save(model, folder)


def test_two_processes_that_save_to_one_folder_leave_one_whole_model(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real").mkdir()
    folders = [tmp_path / "real" / str(number % 3) for number in range(12)]
    ways = (folders, [tmp_path / "link" / folder.name for folder in folders])
    processes = [
        context.Process(target=_save_over_and_over, args=(seed, way, barrier)) for seed, way in enumerate(ways)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    expected = {models.from_config(CONFIG, seed=seed).fingerprint for seed in (0, 1)}
    for folder in sorted(set(folders)):
        saved = SavedModel(folder)
        assert saved.load().fingerprint == saved.fingerprint
        assert saved.fingerprint in expected
        assert saved.manifest["files"] == {
            name: hash_file(folder / name).hex() for name in ("open_clip_config.json", "open_clip_model.safetensors")
        }
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["0", "1", "2"]


def test_the_second_says_that_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, order, waiting = threading.Event(), [], threading.Event()

    def show(text: str, **_: object) -> None:
        order.append(text)
        waiting.set()

    monkeypatch.setattr(console, "print", show)

    def first() -> None:
        with exclusive(tmp_path / "model", "is saving"):
            inside.set()
            assert waiting.wait(20)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    with exclusive(tmp_path / "x" / ".." / "model", "is saving"):
        order.append("second")
    thread.join()
    assert order == [f"Waiting for another process that is saving {tmp_path / 'model'}.", "first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_stands_for_its_path(tiny: Model, tiny_folder: Path) -> None:
    saved = SavedModel(tiny_folder)
    assert os.fspath(saved) == str(saved) == str(tiny_folder)
    assert saved / "manifest.json" == tiny_folder / "manifest.json"
    assert saved.fingerprint == tiny.fingerprint
    assert saved.manifest["made_from"] == {"method": "test"}
    assert models.load(saved).fingerprint == saved.load().fingerprint == tiny.fingerprint
