"""Vectors and queries of `benchmarks/search.py`, with the exact neighbours of the queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip import models
from mcip.core.files import atomic_write
from mcip.data import read_table
from mcip.embeddings.encode import embed_captions, embed_images
from mcip.retrieval.ann.exact import exact_search
from mcip.retrieval.ann.hnsw import EXPANSIONS

Data: TypeAlias = Literal["clustered", "real"]
Vectors: TypeAlias = NDArray[np.float16]
Queries: TypeAlias = NDArray[np.float32]
Found: TypeAlias = NDArray[np.int64]

VECTORS = "vectors.npy"
KINDS = ("image", "text")
K = 10
TRIED, ASKED = 200, 1000  # queries that a width of search is chosen with, and others that are measured
BLOCK = 10_000
# Widths of search that are tried in a graph.
WIDTHS = (10, 12, *EXPANSIONS)
SEED = 11


@dataclass(frozen=True)
class Bench:
    """Vectors (N, D) of unit length; for each kind queries (Q, D), with the products of their tenth neighbours (Q,)."""

    vectors: Vectors
    tried: dict[str, Queries]
    queries_by_kind: dict[str, Queries]
    tried_least: dict[str, Queries]
    least_by_kind: dict[str, Queries]


def unit(vectors: NDArray[np.floating]) -> Queries:
    """Vectors (n, D), each divided by its length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


class Clustered:
    """Synthetic embeddings: images around the centers of clusters around a common mean, texts around another mean.

    An image is 0.65 e + 0.5 c + 0.57 g and a text 0.8 f + 0.35 c + 0.49 g, both divided by their lengths: e and f are
    orthogonal unit vectors, c is the center of a cluster (there are N / 500 of them), c and g are normal with variances
    that fall like 1, 1/2, 1/3, ... in the D directions and add up to 1. So the cosine of two images is 0.42 on average
    and 0.67 within a cluster, that of a text to images of its cluster 0.18, to others 0.
    """

    def __init__(self, size: int, dim: int) -> None:
        self.size, self.dim = size, dim
        variances = 1 / np.arange(1, dim + 1)
        self.scales = np.sqrt(variances / variances.sum()).astype(np.float32)
        rng = np.random.default_rng(SEED)
        self.centers = self.noise(rng, max(10, size // 500))
        self.image_mean, self.text_mean = np.linalg.qr(rng.standard_normal((dim, 2)))[0].T.astype(np.float32)

    def noise(self, rng: np.random.Generator, count: int) -> Queries:
        return np.asarray(rng.standard_normal((count, self.dim), np.float32) * self.scales, np.float32)

    def images(self, count: int, seed: int) -> Queries:
        rng = np.random.default_rng((SEED, seed))
        centers = self.centers[rng.integers(len(self.centers), size=count)]
        return unit(0.65 * self.image_mean + 0.5 * centers + 0.57 * self.noise(rng, count))

    def texts(self, count: int, seed: int) -> Queries:
        rng = np.random.default_rng((SEED, seed))
        centers = self.centers[rng.integers(len(self.centers), size=count)]
        return unit(0.8 * self.text_mean + 0.35 * centers + 0.49 * self.noise(rng, count))

    def queries(self) -> dict[str, Queries]:
        count = TRIED + ASKED
        return {"image": self.images(count, self.size), "text": self.texts(count, self.size + 1)}


class Real:
    """Embeddings of real images and captions, the images repeated with noise until there are enough.

    Queries are images that are held out, and captions. A repeated image is moved by half its length along the
    difference of two others: noise that spreads as the images themselves do, and leaves a cosine of about 0.9. Where
    the model has fewer dimensions than asked for, a random isometry takes the vectors there, which keeps every cosine.
    """

    def __init__(self, size: int, dim: int, tables: Sequence[str], model: str, work: Path) -> None:
        loaded = models.load(model, device="cpu")
        real_images, captions = [], dict[str, None]()
        for path in tables:
            table = read_table(path)
            done = embed_images(table, loaded, work / f"{Path(path).stem}.embeddings")
            real_images.append(unit(done.array()))
            captions |= dict.fromkeys(own[0] for own in table.captions if own)
        rng = np.random.default_rng(SEED)
        every = np.concatenate(real_images)[rng.permutation(sum(map(len, real_images)))]
        texts = [list(captions)[at] for at in rng.permutation(len(captions))[: TRIED + ASKED]]
        written = embed_captions(texts, loaded, work / "captions.embeddings").array()
        own_dim = every.shape[1]
        self.isometry = np.linalg.qr(rng.standard_normal((dim, own_dim)))[0].T.astype(np.float32)
        self.held_out, self.real_images = np.split(every, [TRIED + ASKED])
        self.written = unit(written)

    def images(self, count: int, seed: int) -> Queries:
        first = self.real_images[np.arange(seed * BLOCK, seed * BLOCK + count) % len(self.real_images)]
        repeated = np.arange(seed * BLOCK, seed * BLOCK + count) >= len(self.real_images)
        rng = np.random.default_rng((SEED, seed))
        one, other = rng.integers(len(self.real_images), size=(2, count))
        noise = 0.5 * unit(self.real_images[one] - self.real_images[other] + 1e-9)
        return unit(first + noise * repeated[:, None]) @ self.isometry

    def queries(self) -> dict[str, Queries]:
        return {"image": self.held_out @ self.isometry, "text": self.written @ self.isometry}


def bench(data: Data, size: int, dim: int, tables: Sequence[str], model: str, work: Path) -> Bench:
    """Make the vectors and their queries in a folder, or open those that are there."""
    file, facts = work / VECTORS, work / "queries.npz"
    if not facts.is_file():
        work.mkdir(parents=True, exist_ok=True)
        source = Clustered(size, dim) if data == "clustered" else Real(size, dim, tables, model, work)
        with atomic_write(file) as temporary:
            made = np.lib.format.open_memmap(temporary, "w+", np.float16, (size, dim))
            for start in range(0, size, BLOCK):
                made[start : start + BLOCK] = source.images(min(BLOCK, size - start), start // BLOCK)
            made.flush()
        queries = source.queries()
        vectors = np.load(file, mmap_mode="c")
        found: dict[str, Any] = {f"{kind}_least": exact_search(vectors, queries[kind], K)[0][:, -1] for kind in KINDS}
        with atomic_write(facts) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **(found | queries))
    with np.load(facts) as stored:
        queries = {kind: stored[kind] for kind in KINDS}
        least = {kind: stored[f"{kind}_least"] for kind in KINDS}
    return Bench(
        np.load(file, mmap_mode="c"),
        {kind: queries[kind][:TRIED] for kind in KINDS},
        {kind: queries[kind][TRIED:] for kind in KINDS},
        {kind: least[kind][:TRIED] for kind in KINDS},
        {kind: least[kind][TRIED:] for kind in KINDS},
    )
