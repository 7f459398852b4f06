"""Indexes that store vectors in fewer bytes: what is stored, what searches find, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.embeddings import encode
from mcip.embeddings.compact import Codec, Compact
from mcip.models import Model
from mcip.retrieval import codec as index_codec
from mcip.retrieval.codec import index_form
from mcip.retrieval.index import Index
from mcip.retrieval.table import open_table
from mcip.retrieval.vector_column import vectors_of
from mcip.stages.index import index as build_index

FORMS = ["int8", "binary", "dim=8", "first=8,binary"]


def halves(db: Path) -> tuple[list[str], NDArray[np.float32]]:
    rows = open_table(str(db)).read(["id", "vector"]).sort_by("id")
    return rows["id"].to_pylist(), vectors_of(rows["vector"]).astype(np.float32)


@pytest.mark.parametrize("ann", ["exact", "graph"])
@pytest.mark.parametrize("form", FORMS)
def test_searches_find_what_the_products_with_stored_vectors_say(
    form: str, ann: str, album: Path, indexed: Path, base: Path, tmp_path: Path
) -> None:
    db = tmp_path / "x.lance"
    indexed_now = build_index(str(album), str(db), model=str(base), device="cpu", embedding=form, ann=ann)  # type: ignore[arg-type]
    table = open_table(str(db))
    ids, full = halves(indexed)
    codec = table.codec
    assert codec is not None
    assert str(codec.compact) == str(index_form(form)) == table.identity.embedding
    fitted = Codec.fit(codec.compact, full)
    np.testing.assert_allclose(fitted.mean, codec.mean, atol=2e-3)
    stored = table.read(["id", "vector"]).sort_by("id")
    codes = vectors_of(stored["vector"])
    assert stored["id"].to_pylist() == ids
    assert codes.nbytes == 36 * codec.compact.bytes_of(16)
    assert f"{codec.compact.bytes_of(16):,} bytes per image" in indexed_now.facts()["vectors"]
    index = Index(str(db), device="cpu")
    query = index.encode_texts(["a red mug"])
    expected = query @ codec.restore(codes).T
    assert query.shape[1] == (codec.compact.dim or 16)
    found = index.search(text="a red mug", k=36, exact=True)
    scores = {hit.id: hit.score for hit in found}
    np.testing.assert_allclose([scores[name] for name in ids], expected[0], atol=2e-3)
    # Vectors of the model's own dimension are shortened.
    unshortened = index.search_vectors(index.model.encode(["a red mug"]), "text", 36, exact=True)[0]
    assert [hit.id for hit in unshortened] == [hit.id for hit in found]
    assert index.similar(ids[0], 3)


@pytest.mark.parametrize("sampled", [8192, 12])
def test_an_image_is_embedded_once(
    sampled: int, album: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    encode_pixels = encode.encode_pixels

    def spy(model: Model, pixels: torch.Tensor, *rest: Any) -> NDArray[np.float32]:
        rows.append(len(pixels))
        return encode_pixels(model, pixels, *rest)

    monkeypatch.setattr(index_codec, "SAMPLED", sampled)
    monkeypatch.setattr(encode, "encode_pixels", spy)
    build_index(str(album), str(tmp_path / "x.lance"), model=str(base), device="cpu", embedding="int8", batch_size=5)
    assert sum(rows) == 36


@pytest.mark.parametrize("form", ["int8", "dim=8"])
def test_an_update_stores_in_the_same_way_and_moved_images_keep_their_bytes(
    form: str, own_album: Path, base: Path, tmp_path: Path
) -> None:
    db = tmp_path / "x.lance"
    build_index(str(own_album), str(db), model=str(base), device="cpu", embedding=form)
    before = dict(zip(*[(list(part)) for part in halves(db)], strict=True))
    old = next(own_album.glob("*.jpg"))
    old.rename(own_album / "moved.jpg")
    changes = build_index(str(own_album), str(db), device="cpu").changes
    assert changes is not None
    assert (changes.embedded, changes.reused) == (0, 1)
    after = dict(zip(*[(list(part)) for part in halves(db)], strict=True))
    assert np.array_equal(after["moved.jpg"], before[old.name])
    with pytest.raises(ConfigError, match=f"was made with --embedding {index_form(form)}, not binary"):
        build_index(str(own_album), str(db), device="cpu", embedding="binary")


def test_shortened_vectors_are_searched_on_disk_and_bytes_are_refused_there(
    album: Path, base: Path, tmp_path: Path
) -> None:
    found = build_index(
        str(album), str(tmp_path / "a.lance"), model=str(base), device="cpu", embedding="dim=8", ann="disk"
    )
    assert found.index.search(text="a red mug", k=3)
    with pytest.raises(ConfigError, match=r"Lance's index on disk .* stored as int8"):
        build_index(str(album), str(tmp_path / "b.lance"), model=str(base), device="cpu", embedding="int8", ann="disk")
    build_index(str(album), str(tmp_path / "b.lance"), model=str(base), device="cpu", embedding="int8")
    with pytest.raises(ConfigError, match="Lance's index on disk"):
        build_index(db=str(tmp_path / "b.lance"), device="cpu", ann="disk")
    for place in ("b", "c"):
        with pytest.raises(ConfigError, match=r"Milvus .* stored as (binary|int8)"):
            build_index(
                str(album), str(tmp_path / f"{place}.lance"), model=str(base), engine="milvus",
                uri="http://127.0.0.1:9", embedding=None if place == "b" else "binary",
            )  # fmt: skip


@pytest.mark.parametrize(("form", "why"), [("float32", "half precision"), ("dim=17", "has 16 dimensions")])
def test_forms_that_an_index_cannot_have_are_refused(
    form: str, why: str, album: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=why):
        build_index(str(album), str(tmp_path / "x.lance"), model=str(base), device="cpu", embedding=form)
    assert not (tmp_path / "x.lance").exists()


def test_a_damaged_codec_is_said(album: Path, base: Path, tmp_path: Path) -> None:
    db = tmp_path / "x.lance"
    build_index(str(album), str(db), model=str(base), device="cpu", embedding="int8")
    open_table(str(db)).dataset.update_schema_metadata({"mcip.codec": "AAAA"})
    with pytest.raises(ArtefactError, match="how it stores vectors cannot be read"):
        Index(str(db), device="cpu")


def test_float16_is_the_form_of_an_index_without_one(indexed: Path) -> None:
    assert open_table(str(indexed)).identity.embedding == "float16"
    assert open_table(str(indexed)).codec is None
    assert index_form("dim=8") == Compact("float16", 8)
