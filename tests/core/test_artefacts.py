"""Artefacts: files that appear atomically, manifests that refuse what does not fit, full disks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from mcip.core.artefacts import MANIFEST, Artefact
from mcip.core.errors import ArtefactError
from mcip.core.files import atomic_write, read_json, write_json
from mcip.embeddings.store import write_shard
from mcip.training.checkpoint import Checkpoints
from mcip.training.log import MetricsLog
from tests.limits import with_small_files

BIG = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise KeyError("b")

    with pytest.raises(KeyError):
        fail()
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_leftovers_of_killed_processes_are_removed_and_those_of_others_kept(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    (tmp_path / f".a.json.{process.pid}.part").write_text("left by a dead process")
    (tmp_path / ".a.json.1.part").write_text("of a process that runs")
    (tmp_path / f".b.json.{process.pid}.part").write_text("of another file")
    write_json(tmp_path / "a.json", 1)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "a.json", ".a.json.1.part", f".b.json.{process.pid}.part",
    }  # fmt: skip


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    write_json(tmp_path / "a.json", "old")

    def full(*_: object, **__: object) -> int:
        raise OSError(code, "no room")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ArtefactError, match=r"disk is full: could not write .*a\.json .*run the same command again"):
        write_json(tmp_path / "a.json", "new")
    assert read_json(tmp_path / "a.json") == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "folder", 1)


def _write_safetensors(folder: Path) -> None:
    with atomic_write(folder / "x.safetensors") as temporary:
        save_file({"a": torch.from_numpy(BIG)}, temporary)


def _write_parquet(folder: Path) -> None:
    with atomic_write(folder / "x.parquet") as temporary:
        pq.write_table(pa.table({"a": BIG}), temporary)


def _write_metrics(folder: Path) -> None:
    log = MetricsLog(folder, 0)
    for step in range(2000):
        log.write(step, {"a_rather_long_name_of_a_value": 1.0})


WRITERS = {
    "checkpoint": lambda folder: Checkpoints(folder).write("latest", 1, {"a": torch.from_numpy(BIG)}),
    "vectors": lambda folder: write_shard(folder, 0, BIG.reshape(-1, 100), [str(i) for i in range(1000)]),
    "weights": _write_safetensors,
    "parquet": _write_parquet,
    "json": lambda folder: write_json(folder / "x.json", "x" * 200_000),
    "metrics": _write_metrics,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_says_when_no_more_can_be_written(name: str, tmp_path: Path) -> None:
    assert with_small_files(50_000, WRITERS[name], tmp_path).startswith("The disk is full: could not write")
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("name", sorted(WRITERS.keys() - {"metrics"}))
@pytest.mark.parametrize("missing", [1, 3_000])
def test_the_last_bytes_count_too(name: str, missing: int, tmp_path: Path) -> None:
    """Buffered writers meet a full disk when they close the file."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cramped").mkdir()
    WRITERS[name](tmp_path / "whole")
    size = max(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    message = with_small_files(size - missing, WRITERS[name], tmp_path / "cramped")
    assert message.startswith("The disk is full: could not write")
    assert list((tmp_path / "cramped").iterdir()) == []


def test_begin_open_finish(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    artefact = Artefact.begin(folder, "things", {"n": 3, "path": None})
    assert not artefact.complete
    with pytest.raises(ArtefactError, match="not complete: run the command that makes it again"):
        Artefact.open(folder, "things")
    (folder / "data.txt").write_text("abc")
    (folder / "logs").mkdir()
    (folder / "logs" / "log.txt").write_text("abc")
    artefact.finish(leave_out=["logs"], rows=1)

    again = Artefact.begin(folder, "things", {"n": 3, "path": None})
    assert again.complete
    assert again.manifest["rows"] == 1
    assert again.manifest["files"] == {"data.txt": hashlib.blake2b(b"abc", digest_size=16).hexdigest()}
    assert set(again.manifest["versions"]) >= {"mcip", "torch", "open_clip_torch"}
    assert Artefact.is_one(folder, "things")
    assert not Artefact.is_one(folder, "others")
    assert not Artefact.is_one(tmp_path, "things")


def test_other_inputs_are_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    with Artefact.begin(tmp_path / "a", "things", {"lr": 0.1, "seed": 1, "k": 2}):
        (tmp_path / "a" / "data").write_text("")
    for complete in (False, True):
        if complete:
            Artefact.begin(tmp_path / "a", "things", {"lr": 0.1, "seed": 1, "k": 2}).finish()
        with pytest.raises(ArtefactError, match=r"\(lr: 0\.1 there, 0\.2 now; seed: 1 there, None now\)"):
            Artefact.begin(tmp_path / "a", "things", {"lr": 0.2, "k": 2})


def test_an_artefact_that_holds_nothing_yet_is_started_anew(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        with Artefact.begin(tmp_path / "a", "things", {"lr": lr}):
            pass
    assert read_json(tmp_path / "a" / MANIFEST)["made_from"] == {"lr": 0.2}


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ArtefactError, match="not empty and is not an artefact of mcip"):
        Artefact.begin(tmp_path, "things", {})
    with pytest.raises(ArtefactError, match=r"has no manifest\.json"):
        Artefact.open(tmp_path, "things")
    Artefact.begin(tmp_path / "b", "others", {})
    with pytest.raises(ArtefactError, match="holds 'others', but 'things' is needed"):
        Artefact.begin(tmp_path / "b", "things", {})


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    """Whatever path leads to it; afterwards nothing of the lock is left."""
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with Artefact.begin(tmp_path / "a", "things", {}) as artefact:
        for path in (tmp_path / "a", tmp_path / "link"):
            with pytest.raises(ArtefactError, match=rf"is being written by process {os.getpid()} on .* since"):
                Artefact.begin(path, "things", {})
    with pytest.raises(KeyError), Artefact.begin(tmp_path / "a", "things", {}):
        raise KeyError
    with Artefact.begin(tmp_path / "a", "things", {}) as artefact:
        artefact.finish()
    assert [path.name for path in (tmp_path / "a").iterdir()] == [MANIFEST]


def test_the_lock_of_a_dead_process_holds_nobody_up(tmp_path: Path) -> None:
    code = (
        "import os; from mcip.core.artefacts import Artefact\n"
        f"artefact = Artefact.begin({str(tmp_path / 'a')!r}, 'things', {{}})\nos._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "a" / ".lock").exists()
    with Artefact.begin(tmp_path / "a", "things", {}) as artefact:
        artefact.finish()
    assert [path.name for path in (tmp_path / "a").iterdir()] == [MANIFEST]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"abd"), lambda path: path.unlink()])
def test_files_are_what_was_written(damage: Callable[[Path], None], tmp_path: Path) -> None:
    with Artefact.begin(tmp_path / "a", "things", {}) as artefact:
        (tmp_path / "a" / "data").write_bytes(b"abc")
        artefact.finish()
    Artefact.open(tmp_path / "a", "things")
    damage(tmp_path / "a" / "data")
    for take in (Artefact.open, lambda folder, kind: Artefact.begin(folder, kind, {})):
        with pytest.raises(ArtefactError, match=r"data is (damaged|missing).*run what makes it again"):
            take(tmp_path / "a", "things")


def test_an_artefact_of_an_earlier_version_has_to_be_made_again(tmp_path: Path) -> None:
    with Artefact.begin(tmp_path / "a", "things", {}) as artefact:
        artefact.finish()
    manifest = {key: value for key, value in artefact.manifest.items() if key != "format"}
    write_json(tmp_path / "a" / MANIFEST, {**manifest, "versions": {"mcip": "0.1.0"}})
    for take in (Artefact.open, lambda folder, kind: Artefact.begin(folder, kind, {})):
        with pytest.raises(ArtefactError, match=r"was made by mcip 0\.1\.0, .* make it again"):
            take(tmp_path / "a", "things")


@pytest.mark.parametrize("content", ["[]", "{}", "", "3", '{"kind": "things"}', '{"kind": "things", "complete": true'])
def test_a_damaged_manifest_is_reported(content: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(content)
    for take in (Artefact.open, lambda folder, kind: Artefact.begin(folder, kind, {})):
        with pytest.raises(ArtefactError, match=r"manifest\.json is (damaged|not valid JSON)"):
            take(tmp_path, "things")


def test_damaged_and_missing_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": 1})[:-2])
    with pytest.raises(ArtefactError, match="is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ArtefactError, match="There is no file"):
        read_json(tmp_path / "b.json")
