"""What an update may not delete: a disk that is not mounted, or files that are not there yet, empty no index."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mcip.core.errors import DataError
from mcip.retrieval.index import Index
from mcip.retrieval.removal import check_removal
from mcip.retrieval.table import open_table
from mcip.stages.index import index as build_index

Run = Callable[..., Index]


def rows(folder: Path) -> list[str]:
    return sorted(open_table(str(folder.parent / "photos.lance")).read(["id"])["id"].to_pylist())


def test_an_unmounted_folder(run_index: Run, own_album: Path, tmp_path: Path) -> None:
    run_index()
    before = rows(own_album)
    inner = shutil.move(own_album / "a" / "b", tmp_path / "unmounted")
    (own_album / "a" / "b").mkdir()
    with pytest.raises(DataError, match=r"12 of the 36 .* all images of these folders are among them:\n  a/b: 12\n"):
        run_index()
    with pytest.raises(DataError, match="a/b: 12"):
        run_index(max_removed=0.9)
    assert rows(own_album) == before
    run_index(max_removed=1)
    assert rows(own_album) == [name for name in before if not name.startswith("a/b/")]
    assert Path(inner).is_dir()


def test_a_folder_of_which_all_is_gone_beside_new_images(run_index: Run, own_album: Path) -> None:
    run_index()
    before = rows(own_album)
    images = sorted(own_album.glob("a/b/*.jpg"))
    for number, path in enumerate(images):
        (own_album / f"new-{number}.jpg").write_bytes(path.read_bytes() + b"\0")
        path.unlink()
    with pytest.raises(DataError, match=r"12 of the 36 images .*\n  a/b: 12\n"):
        run_index()
    assert set(before) <= set(rows(own_album))


def test_a_large_share_without_a_whole_folder(run_index: Run, own_album: Path) -> None:
    run_index()
    for path in sorted(own_album.rglob("*.jpg"))[:30:2]:
        path.unlink()
    with pytest.raises(DataError, match=r"15 of the 36 .* more than max_removed = 0.2 of them:\n"):
        run_index()
    assert len(rows(own_album)) == 36
    assert len(run_index(max_removed=0.5)) == 21


def test_placeholders_of_no_bytes_keep_their_rows(run_index: Run, own_album: Path) -> None:
    run_index()
    before = rows(own_album)
    contents = {path: path.read_bytes() for path in sorted(own_album.rglob("*.jpg"))}
    for path in list(contents)[::2]:
        path.write_bytes(b"")
    assert len(run_index(max_removed=0)) == 36
    assert rows(own_album) == before
    for path in contents:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="has 0 bytes: perhaps a cloud has not downloaded it"):
        run_index()
    for path, content in contents.items():
        path.write_bytes(content)
    run_index()
    assert rows(own_album) == before


def test_a_renamed_folder_is_no_loss(run_index: Run, own_album: Path) -> None:
    run_index()
    before = rows(own_album)
    (own_album / "a").rename(own_album / "renamed")
    run_index()
    assert rows(own_album) == sorted(f"renamed{name[1:]}" if name.startswith("a/") else name for name in before)


def test_an_empty_folder_says_so(run_index: Run, own_album: Path) -> None:
    run_index()
    shutil.rmtree(own_album)
    own_album.mkdir()
    with pytest.raises(DataError, match=r"it is empty\. If a disk or a bucket should be mounted there, mount it"):
        run_index()
    assert len(rows(own_album)) == 36


def test_the_topmost_folders_are_named() -> None:
    ids = [*(f"a/{part}/{number}" for part in "bc" for number in range(3)), *(f"d/{number}" for number in range(94))]
    check_removal(ids, ids[6:20], 0.2, lambda _: True, "s")
    check_removal(ids, ids[:6], 0.2, lambda _: False, "s")
    check_removal(ids, ids, 1, lambda _: True, "s")
    with pytest.raises(DataError, match=r"6 of the 100 images .* among them:\n  a: 6\nNothing was deleted"):
        check_removal(ids, ids[:6], 0.2, lambda _: True, "s")
    with pytest.raises(DataError, match=r"3 of the 100 images .* among them:\n  a/b: 3\nNothing"):
        check_removal(ids, ids[:3], 0.2, lambda _: True, "s")
    with pytest.raises(DataError, match=r"30 of the 100 images .*more than max_removed = 0.2 of them:\n  d: 30\n"):
        check_removal(ids, ids[6:36], 0.2, lambda _: True, "s")


def test_a_folder_beside_a_table(run_index: Run, own_album: Path, base: Path, train: Path, tmp_path: Path) -> None:
    db = str(tmp_path / "t.lance")
    build_index([str(own_album), str(train)], db, model=str(base), device="cpu")
    shutil.rmtree(own_album / "a" / "b")
    with pytest.raises(DataError, match=r"all images of these folders are among them:\n  photos/a/b: 12\n"):
        build_index(db=db, device="cpu", max_removed=0.5)
