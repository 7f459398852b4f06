"""Embeddings in fewer bytes, against the formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.embeddings.compact import Codec, Compact

FORMS = ["float32", "float16", "int8", "binary", "dim=8", "first=8", "dim=8,int8", "first=9,binary"]


def gallery(count: int = 300, dim: int = 24) -> NDArray[np.float32]:
    """Unit vectors around a mean, most of whose variance lies in few directions, as embeddings of CLIP do."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(count, dim)) * 0.7 ** np.arange(dim) @ np.linalg.qr(random.normal(size=(dim, dim)))[0]
    vectors += random.normal(size=dim)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_written_as_it_is_read(form: str) -> None:
    assert str(Compact.parse(form)) == form
    assert Compact.parse(form).changes == (form != "float32")


@pytest.mark.parametrize("form", ["", "int4", "int8,binary", "dim=0", "dim=8,first=8", "int8,", "dim=8,int8,x"])
def test_other_forms_are_refused(form: str) -> None:
    with pytest.raises(ConfigError, match="it is float32, float16, int8 or binary"):
        Compact.parse(form)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("float32", 96), ("float16", 48), ("int8", 24), ("binary", 3), ("dim=9,binary", 2)],
)
def test_bytes_are_those_of_what_is_stored(form: str, expected: int) -> None:
    compact = Compact.parse(form)
    assert compact.bytes_of(24) == expected
    assert Codec.fit(compact, gallery()).compress(gallery()).nbytes == 300 * expected


@pytest.mark.parametrize("form", FORMS)
def test_what_is_restored_has_unit_length_and_a_codec_is_read_as_it_was_written(form: str, tmp_path: Path) -> None:
    vectors = gallery()
    codec = Codec.fit(Compact.parse(form), vectors)
    codes = codec.compress(vectors)
    assert np.allclose(np.linalg.norm(codec.restore(codes), axis=1), 1, atol=1e-3)
    codec.save(tmp_path / "codec.npz")
    assert np.array_equal(Codec.load(tmp_path / "codec.npz").compress(vectors), codes)


def test_bytes_are_within_half_a_step_before_they_are_brought_to_unit_length() -> None:
    vectors = gallery()
    codec = Codec.fit(Compact.parse("int8"), vectors)
    restored = codec.mean + codec.scale * codec.compress(vectors).astype(np.float32)
    assert np.abs(restored - vectors).max() <= codec.scale.max() * 0.501
    assert np.allclose(codec.scale * 127, np.abs(vectors - vectors.mean(0)).max(0), rtol=1e-4)


def test_bits_are_the_signs_around_the_mean() -> None:
    vectors = gallery()
    codec = Codec.fit(Compact.parse("binary"), vectors)
    mean = vectors.mean(0)
    spread = vectors.var(0) / np.abs(vectors - mean).mean(0)
    expected = mean + spread * np.where(vectors >= mean, 1, -1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(codec.stored(vectors), expected, atol=1e-5)


def test_principal_components_keep_products_better_than_any_other_dimensions() -> None:
    vectors = gallery()
    exact = vectors @ vectors.T
    matrix = Codec.fit(Compact.parse("dim=6"), vectors).matrix
    assert matrix is not None
    assert np.allclose(matrix.T @ matrix, np.eye(6), atol=1e-5)
    kept = vectors @ matrix
    error = np.linalg.norm(exact - kept @ kept.T)
    singular = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    assert error == pytest.approx(np.sqrt((singular[6:] ** 4).sum()), rel=1e-3)  # Eckart and Young
    assert error < np.linalg.norm(exact - vectors[:, :6] @ vectors[:, :6].T)


def test_all_principal_components_change_no_product_also_with_texts() -> None:
    vectors, texts = gallery(), -gallery(7)
    codec = Codec.fit(Compact.parse("dim=24"), vectors)
    assert np.allclose(codec.project(texts) @ codec.stored(vectors).T, texts @ vectors.T, atol=1e-5)


def test_products_with_shortened_vectors_stay_near_the_cosines_of_whole_ones() -> None:
    vectors = gallery()
    texts = gallery(9)[:, ::-1] / 2 + gallery(9) / 2
    codec = Codec.fit(Compact.parse("dim=12"), vectors)
    found = codec.project(texts) @ codec.stored(vectors).T
    lengths = np.linalg.norm(vectors @ codec.matrix, axis=1)  # type: ignore[operator]
    assert np.allclose(found * lengths, texts @ vectors.T, atol=0.05)


def test_more_dimensions_than_there_are_and_an_empty_gallery_are_refused() -> None:
    with pytest.raises(ConfigError, match="embeddings have 24 dimensions"):
        Codec.fit(Compact.parse("dim=25"), gallery())
    with pytest.raises(ConfigError, match="no embedding"):
        Codec.fit(Compact.parse("int8"), gallery()[:0])


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "codec.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ArtefactError, match="cut off or damaged"):
        Codec.load(tmp_path / "codec.npz")
