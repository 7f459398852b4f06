"""Toyshop's images as tables: parquet files of the one table, with the names of shape and colour beside it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mcip.core.files import atomic_write
from mcip.core.progress import progress
from mcip.toyshop.captions import sample_caption
from mcip.toyshop.render import render, sample_view
from mcip.toyshop.world import sample_product

_SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "label": pa.string(),
        "captions": pa.list_(pa.string()),
        "split": pa.string(),
        "id": pa.string(),
        "shape": pa.string(),
        "colour_shape": pa.string(),
    }
)


@dataclass(frozen=True)
class Slice:
    """A part of the world: `products` products with `images` images of `captions` captions each.

    Two slices with different streams have no product in common.

    Attributes:
        name: What it is for; part of its products' names.
        stream: Seeds the products, their views and their captions.
        products: How many products.
        images: Images per product.
        captions: Captions per image.
        splits: The splits of a product's images, in turn.
    """

    name: str
    stream: int
    products: int
    images: int = 1
    captions: int = 0
    splits: tuple[str, ...] = ("train",)

    @property
    def file(self) -> str:
        """The name of its file, another one for each size."""
        return f"{self.name}-{self.products}x{self.images}x{self.captions}.parquet"


def write_slice(part: Slice, path: Path) -> Path:
    """Draw a slice of the world and write it as parquet; if the file is there already, leave it.

    The same slice gives the same images and captions, byte for byte.
    """
    if path.exists():
        return path
    with (
        ProcessPoolExecutor(os.cpu_count()) as pool,
        progress(f"draw {part.name}", part.products, "products") as advance,
    ):
        rows: list[dict[str, Any]] = []
        for drawn in pool.map(draw_product, _parts(part), range(part.products), chunksize=32):
            rows += drawn
            advance(1)
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), temporary)
    return path


def _parts(part: Slice) -> Iterator[Slice]:
    while True:
        yield part


def draw_product(part: Slice, number: int) -> list[dict[str, Any]]:
    """The rows of one product of a slice."""
    rng = np.random.default_rng([part.stream, number])
    product = sample_product(rng)
    name = f"{part.name}-{number:05d}"
    rows = []
    for image in range(part.images):
        view = sample_view(rng)
        file = io.BytesIO()
        Image.fromarray(render(product, view)).save(file, "JPEG", quality=92)
        rows.append(
            {
                "image": {"bytes": file.getvalue(), "path": None},
                "label": name,
                "captions": [sample_caption(product, view.scene, rng) for _ in range(part.captions)],
                "split": part.splits[image % len(part.splits)],
                "id": f"{name}-{image}",
                "shape": product.shape,
                "colour_shape": f"{product.colours[0]} {product.shape}",
            }
        )
    return rows
