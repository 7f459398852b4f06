"""Hashes of files: those of the content, whatever is remembered."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mcip.core import hashes
from mcip.core.hashes import content_hash


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_it_is_read_once_while_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert content_hash(path) == sha256(b"abc")
    monkeypatch.setattr(hashes, "file_hash", None)
    assert content_hash(path) == sha256(b"abc")
    monkeypatch.undo()
    path.write_bytes(b"abd")
    assert content_hash(path) == sha256(b"abd")


def test_other_content_of_the_same_size_and_time(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"abc")
    first = content_hash(path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    other.write_bytes(b"xyz")
    other.replace(path)
    os.utime(path, ns=times)
    assert content_hash(path) == sha256(b"xyz") != first


def test_without_a_cache_it_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path / "file" / "no folder"))
    assert content_hash(tmp_path / "file") == sha256(b"abc")
    monkeypatch.setenv("MCIP_CACHE", str(tmp_path))
    (tmp_path / "hashes.sqlite").write_bytes(b"this is no database, but a text that is long enough" * 100)
    assert content_hash(tmp_path / "file") == sha256(b"abc")
