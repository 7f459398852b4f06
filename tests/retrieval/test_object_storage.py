"""The index and its images on object storage: an S3 server on this machine's loopback."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mcip.core.errors import ArtefactError, DataError, UnreadableImage
from mcip.core.progress import console
from mcip.retrieval.index import Index
from mcip.retrieval.listing import list_images, read_image
from mcip.retrieval.lock import write_lock
from mcip.retrieval.table import table_exists
from mcip.stages.index import index as build_index

PHOTOS, DB = "s3://images/photos", "s3://indexes/photos.lance"


def run_index(base: Path, **parameters: Any) -> Index:
    build_index(PHOTOS, DB, **{"model": str(base), "device": "cpu", "shard_rows": 10, "thumbnails": 16, **parameters})
    return Index(DB, device="cpu")


@pytest.mark.parametrize("ann", ["exact", "graph"])
def test_images_and_table_on_object_storage(client: Any, base: Path, indexed: Path, ann: str) -> None:
    local = Index(indexed, device="cpu")
    index = run_index(base, ann=ann)
    assert len(index) == len(local) == 36
    for hit in local.search(text="a red mug", k=3):
        assert index.row(hit.id)["path"] == f"{PHOTOS}/{hit.id}"
        assert index.image_file(hit.id) == local.image_file(hit.id)
        assert index.thumbnail(hit.id)
    queries = [local.vector(hit.id) for hit in local.search(text="a toy", k=5)]
    for query in queries:
        found, expected = (opened.search_vectors(query[None], "image", 5, exact=True)[0] for opened in (index, local))
        assert [hit.id for hit in found] == [hit.id for hit in expected]
    keys = {found["Key"].split("/")[0] for found in client.list_objects_v2(Bucket="indexes")["Contents"]}
    assert keys == {"photos.lance"}


def test_a_second_reader_picks_up_a_new_version(client: Any, base: Path, own_album: Path) -> None:
    run_index(base)
    reader = Index(DB, device="cpu")
    assert not reader.refresh()
    first, second = sorted(own_album.rglob("*.jpg"))[:2]
    client.delete_object(Bucket="images", Key=f"photos/{first.relative_to(own_album)}")
    client.put_object(Bucket="images", Key="photos/new.jpg", Body=second.read_bytes() + b"\0")
    run_index(base)
    assert len(reader) == 36
    assert str(first.relative_to(own_album)) in {hit.id for hit in reader.search(text="a toy", k=36)}
    assert reader.refresh()
    ids = {hit.id for hit in reader.search(text="a toy", k=40)}
    assert len(ids) == 36
    assert "new.jpg" in ids
    assert str(first.relative_to(own_album)) not in ids
    assert not reader.refresh()


def test_hidden_objects_and_an_empty_prefix(client: Any, base: Path) -> None:
    index = run_index(base)
    content = client.get_object(Bucket="images", Key=f"photos/{index.browse(1)[0].id}")["Body"].read()
    for key in ("._x.jpg", ".Trash/x.jpg", "__MACOSX/x.jpg", "a/.y.jpg", "x.doc"):
        client.put_object(Bucket="images", Key=f"photos/{key}", Body=content)
    listing = list_images(PHOTOS + "/")
    assert len(listing) == 36
    assert listing.skipped.keys() == {"notes.md", "x.doc"}
    assert (listing.kind, listing.location) == ("objects", PHOTOS)
    for found in client.list_objects_v2(Bucket="images")["Contents"]:
        client.delete_object(Bucket="images", Key=found["Key"])
    with pytest.raises(DataError, match="s3://images/photos"):
        run_index(base)
    assert len(Index(DB, device="cpu")) == 36


def test_an_empty_prefix_and_objects_of_no_bytes_keep_their_rows(client: Any, base: Path) -> None:
    run_index(base)
    keys = [found["Key"] for found in client.list_objects_v2(Bucket="images")["Contents"]]
    for key in keys:
        if key.startswith("photos/a/b/"):
            client.put_object(Bucket="images", Key=key, Body=b"")
    assert len(run_index(base)) == 36
    for key in keys:
        if key.startswith("photos/a/b/"):
            client.delete_object(Bucket="images", Key=key)
    with pytest.raises(DataError, match=r"all images of these folders are among them:\n  a/b: 12\n"):
        run_index(base)
    assert len(Index(DB, device="cpu")) == 36


def test_a_second_writer_on_object_storage_waits(
    client: Any, base: Path, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(console, "print", lambda *texts, **_: notes.extend(texts))
    monkeypatch.setattr("mcip.retrieval.lock._POLL", 0.05)
    waiting = threading.Thread(target=run_index, args=(base,))
    with write_lock(DB) as check:
        waiting.start()
        while not any("is being written to by process" in note for note in notes):
            time.sleep(0.02)
        assert not table_exists(DB)
        check()
    waiting.join(60)
    assert any("36 images embedded" in str(note) for note in notes)
    assert len(Index(DB, device="cpu")) == 36


def test_what_is_not_there(client: Any, base: Path) -> None:
    with pytest.raises(ArtefactError, match="no index that can be opened"):
        Index("s3://indexes/nothing.lance")
    with pytest.raises(DataError, match="s3://images/nothing"):
        list_images("s3://images/nothing")
    with pytest.raises(UnreadableImage, match="no object"):
        read_image(f"{PHOTOS}/gone.jpg")
