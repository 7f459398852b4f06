"""Mining: the naive nearest captions, duplicates, thresholds, bad pools, memory that does not grow with the pool."""

from __future__ import annotations

import shutil
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcip import models
from mcip.core.artefacts import MANIFEST, Artefact
from mcip.core.errors import ArtefactError, ConfigError, DataError
from mcip.core.files import read_json, write_json
from mcip.data import read_table
from mcip.embeddings.mined_captions import MinedCaptions
from mcip.embeddings.mining import first_occurrences, search_captions
from mcip.embeddings.store import KIND, Embeddings
from mcip.stages.mine import mine


def naive(train: Path, pool: Path, base: Path, k: int) -> list[list[tuple[str, float]]]:
    """For each image its k nearest different captions with their cosines."""
    table, model = read_table(train), models.load(base)
    texts = list(dict.fromkeys(pool.read_text().splitlines()))
    transform = model.transform()
    images = model.embed_pixels(torch.stack([transform(table.image(row)) for row in range(len(table))])).numpy()
    cosines = images.astype(np.float64) @ model.encode(texts).T
    return [[(texts[i], row[i]) for i in np.argsort(-row, kind="stable")[:k]] for row in cosines]


def read(folder: Path) -> list[list[tuple[str, float]]]:
    found = MinedCaptions(folder)
    return [
        [(found.captions[i], cosine) for i, cosine in zip(row["captions"], row["similarities"], strict=True)]
        for row in found.images.to_pylist()
    ]


def assert_same(found: list[list[tuple[str, float]]], expected: list[list[tuple[str, float]]]) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    for found_row, expected_row in zip(found, expected, strict=True):
        np.testing.assert_allclose([c for _, c in found_row], [c for _, c in expected_row], atol=1e-5)
        # Captions whose cosines are equal to float32's precision may change places.
        assert len({text for text, _ in found_row} ^ {text for text, _ in expected_row}) <= 2


def test_the_nearest_captions_without_a_threshold(train: Path, pool: Path, base: Path, tmp_path: Path) -> None:
    mine(str(train), str(pool), tmp_path / "a", str(base), k=7, image_block=9, batch_size=5)
    assert_same(read(tmp_path / "a"), naive(train, pool, base, 7))
    manifest = read_json(tmp_path / "a" / "manifest.json")
    assert manifest["dropped_duplicates"] == 4
    assert manifest["images_by_caption_count"] == [0, 0, 0, 0, 0, 0, 0, 32]
    assert manifest["threshold"] is None
    assert manifest["model"] == str(base)
    captions = MinedCaptions(tmp_path / "a").captions
    assert manifest["unique_captions"] == len(captions) == len(set(captions))


def test_a_threshold_leaves_images_without_captions(train: Path, pool: Path, base: Path, tmp_path: Path) -> None:
    nearest = naive(train, pool, base, 5)
    # Between the best cosines of the images, so that some of them keep none.
    bound = float(np.median([row[0][1] for row in nearest])) + 1e-6
    mine(str(train), str(pool), tmp_path / "a", str(base), k=5, threshold=bound)
    expected = [[(text, cosine) for text, cosine in row if cosine >= bound] for row in nearest]
    assert 0 < sum(not row for row in expected) < 32
    assert_same(read(tmp_path / "a"), expected)
    manifest = read_json(tmp_path / "a" / "manifest.json")
    assert manifest["images_by_caption_count"] == np.bincount([len(row) for row in expected], minlength=6).tolist()


def test_a_quantile_drops_its_share_of_the_pairs(mined: Path, train: Path, pool: Path, base: Path) -> None:
    cosines = np.array([[cosine for _, cosine in row] for row in naive(train, pool, base, 5)])
    kept = [cosine for row in read(mined) for _, cosine in row]
    manifest = read_json(mined / "manifest.json")
    assert manifest["threshold"] == pytest.approx(np.quantile(cosines, 0.3), abs=1e-5)
    assert len(kept) == pytest.approx(0.7 * cosines.size, abs=1)
    assert min(kept) >= manifest["threshold"] - 1e-6
    assert sum(count * images for count, images in enumerate(manifest["images_by_caption_count"])) == len(kept)


def test_no_caption_above_the_threshold_at_all(train: Path, pool: Path, base: Path, tmp_path: Path) -> None:
    mine(str(train), str(pool), tmp_path / "a", str(base), threshold=1.0)
    assert read(tmp_path / "a") == [[]] * 32
    assert read_json(tmp_path / "a" / "manifest.json")["images_by_caption_count"] == [32] + [0] * 20


def test_a_pool_smaller_than_k(train: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "pool.txt").write_text("a mug\na star\na mug\n")
    mine(str(train), str(tmp_path / "pool.txt"), tmp_path / "a", str(base), k=20)
    assert read_json(tmp_path / "a" / "manifest.json")["images_by_caption_count"] == [0, 0, 32]


def test_another_trained_model_gets_its_own_embeddings(
    train: Path, pool: Path, base: Path, tmp_path: Path, tiny_config: dict[str, Any]
) -> None:
    trained = models.from_config(tiny_config, seed=5)
    folder = models.save(trained, tmp_path / "trained")
    mine(str(train), str(pool), tmp_path / "a", str(base), trained_model=str(folder), k=3)
    texts = list((tmp_path / "a").glob("text-*"))
    assert [path.name for path in texts] == [f"text-{trained.fingerprint[:16]}"]
    assert Embeddings(texts[0]).dim == 8


@given(st.lists(st.sampled_from(["a", "b", "ab", "ä", "", " a", "A", "longer text"]), max_size=30), st.integers(1, 7))
def test_first_occurrences(texts: list[str], slice_rows: int) -> None:
    rows, digest = first_occurrences(texts, slice_rows)
    assert [texts[row] for row in rows] == list(dict.fromkeys(texts))
    assert rows.tolist() == [texts.index(text) for text in dict.fromkeys(texts)]
    assert digest == first_occurrences([texts[row] for row in rows], 3)[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"threshold": 0.3, "quantile": 0.5}, "Both a threshold and a quantile"),
        ({"quantile": 1.0}, "quantile is 1.0: it is a share"),
        ({"threshold": 30.0}, "threshold is 30.0: it is a cosine"),
        ({"image_block": 0}, "image_block is 0"),
    ],
)
def test_wrong_parameters(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        mine("nowhere", "nothing", tmp_path / "a", "no model", **wrong)
    assert not (tmp_path / "a").exists()


def test_an_empty_pool(train: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "pool.txt").write_text("\n  \n")
    with pytest.raises(DataError, match="the pool is empty"):
        mine(str(train), str(tmp_path / "pool.txt"), tmp_path / "a", str(base))


def test_not_one_readable_image(train: Path, pool: Path, base: Path, tmp_path: Path) -> None:
    rows = pq.read_table(train).to_pylist()
    for row in rows:
        row["image"] = {"bytes": b"nothing", "path": None}
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(train)), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="unreadable"):
        mine(str(tmp_path / "t.parquet"), str(pool), tmp_path / "a", str(base))
    with pytest.raises(DataError, match="None of the 32 images"):
        mine(str(tmp_path / "t.parquet"), str(pool), tmp_path / "a", str(base), max_unreadable=1.0)


def test_other_parameters_are_refused_by_name(mined: Path, train: Path, pool: Path, base: Path) -> None:
    with pytest.raises(ArtefactError, match=r"\(k: 5 there, 6 now; quantile: 0\.3 there, None now\)"):
        mine(str(train), str(pool), mined, str(base), k=6)


class Recorded(np.ndarray):
    """A map of a file that remembers the longest slice taken of it."""

    longest = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(key, slice):
            Recorded.longest = max(Recorded.longest, len(part))
        return part


def synthetic(folder: Path, rows: int, dim: int) -> Embeddings:
    """An embeddings artefact whose vectors take no space in memory and little on the disk."""
    artefact = Artefact.begin(folder, KIND, {})
    path = folder / "vectors-00000.npy"
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    rng = np.random.default_rng(0)
    for place in rng.choice(rows, min(rows, 500), replace=False):
        vectors[place] = rng.standard_normal(dim)
    vectors.flush()
    pq.write_table(pa.table({"id": [str(row) for row in range(rows)], "unreadable": pa.nulls(rows, pa.string())}),
                   folder / "rows-00000.parquet")  # fmt: skip
    artefact.finish(dim=dim)
    return Embeddings(folder)


def test_memory_does_not_grow_with_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = synthetic(tmp_path / "images", 10, 64)
    peaks = {}
    for rows in (40_000, 200_000):
        pool = synthetic(tmp_path / f"pool-{rows}", rows, 64)
        shards = [(start, shard.view(Recorded)) for start, shard in pool.blocks()]
        monkeypatch.setattr(pool, "blocks", partial(iter, shards))
        Recorded.longest = 0
        tracemalloc.start()
        search_captions(images, pool, 5, 4, tmp_path / f"found-{rows}", torch.device("cpu"))
        peaks[rows] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0 < Recorded.longest <= 16_384
        found = pa.concat_tables(
            [pq.read_table(path) for path in sorted((tmp_path / f"found-{rows}").glob("top-*.parquet"))]
        )
        cosines = images.array() @ pool.array().T
        np.testing.assert_allclose(found["similarities"].to_pylist(), -np.sort(-cosines, 1)[:, :5], atol=1e-4)
    assert peaks[200_000] < 1.2 * peaks[40_000] + 1e6


def test_the_pool_is_identified_by_its_different_captions() -> None:
    assert first_occurrences(["a", "b", "a"])[1] == first_occurrences(["a", "b"])[1]
    assert first_occurrences(["b", "a"])[1] != first_occurrences(["a", "b"])[1]


def test_a_resumed_run_searches_damaged_blocks_again(train: Path, pool: Path, base: Path, tmp_path: Path) -> None:
    run: dict[str, Any] = {"k": 3, "image_block": 8, "device": "cpu"}
    whole = Path(mine(train, pool, tmp_path / "whole", base, **run))
    expected = (whole / "images.arrow").read_bytes()
    begun = tmp_path / "begun"
    block = next((whole / "search").glob("top-000000008-*.parquet"))
    size = block.stat().st_size
    for place in range(5, size, size // 8):
        shutil.rmtree(begun, ignore_errors=True)
        shutil.copytree(whole, begun)
        write_json(begun / MANIFEST, {**read_json(begun / MANIFEST), "complete": False})
        content = bytearray(block.read_bytes())
        content[place] ^= 4
        (begun / "search" / block.name).write_bytes(content)
        mine(train, pool, begun, base, **run)
        assert (begun / "images.arrow").read_bytes() == expected
