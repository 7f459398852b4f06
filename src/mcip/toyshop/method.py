"""The whole method in a small world: Toyshop's base model, adapted, tuned and realigned, and compared.

Everything is made here: products that the base model has never seen, a pool of captions, and held-out products to test
on. What is tuned is interpolated with the base (`mcip.interpolate`) before it is realigned. The hyper-parameters were
chosen by runs on validation products, as `python -m mcip.toyshop.sweep` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mcip import models
from mcip.core.choices import CenterInit, Method, TransformName
from mcip.core.files import atomic_write
from mcip.data import read_table
from mcip.embeddings.mining import images_folder
from mcip.evaluation.several import measure_models
from mcip.evaluation.tasks import Task
from mcip.reporting.report import Report
from mcip.stages.adapt import adapt
from mcip.stages.align import align
from mcip.stages.interpolate import interpolate
from mcip.stages.mine import mine
from mcip.stages.report import report
from mcip.stages.tune import tune
from mcip.toyshop.tables import Slice, write_slice

BASE = "toyshop"
METHODS: tuple[Method, ...] = ("gpr-ft", "mcip")


@dataclass(frozen=True)
class World:
    """The slices of Toyshop that a run of the demo uses: no product is in two of them.

    Attributes:
        labelled: Images with class labels, to tune on.
        captioned: Images with captions: the pool that is mined, and the pairs of Re-A.
        products: Held-out products, several images each.
        images: Held-out images, one of each product, with captions: the gallery of text to image.
    """

    labelled: Slice
    captioned: Slice
    products: Slice
    images: Slice

    def validation(self) -> World:
        """The same with held-out products that are in no test: hyper-parameters are chosen on them."""
        products, images = (
            replace(part, name=f"{part.name}-validation", stream=part.stream + 10)
            for part in (self.products, self.images)
        )
        return replace(self, products=products, images=images)


TEST = World(
    labelled=Slice("labelled", stream=10, products=1_000, images=4),
    captioned=Slice("captioned", stream=11, products=6_000, captions=2),
    products=Slice("test", stream=12, products=300, images=6, splits=("index", "query")),
    images=Slice("test-captions", stream=13, products=1_000, captions=2),
)
FULL_TEST = World(
    labelled=replace(TEST.labelled, products=1_500, images=8),
    captioned=replace(TEST.captioned, products=16_000),
    products=replace(TEST.products, images=10),
    images=replace(TEST.images, captions=5),
)
# For a run that only shows that everything works.
QUICK_TEST = World(
    labelled=replace(TEST.labelled, products=60),
    captioned=replace(TEST.captioned, products=400),
    products=replace(TEST.products, products=40),
    images=replace(TEST.images, products=60),
)


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of the demo."""

    steps: int = 200
    batch_size: int = 64
    lr: float = 5e-4
    center_init: CenterInit = "class-means"
    center_lr_factor: float = 20.0
    transform: TransformName = "model"
    caption_weight: float = 0.2
    k: int = 5
    alpha: float = 1.0
    adapt_steps: int = 600
    align_steps: int = 100
    align_batch_size: int = 256
    align_lr: float = 5e-4


# As long as tuning gains something: then a place on the line to the base is better than its end.
FULL_RECIPE = Recipe(steps=900, lr=2.5e-4, alpha=0.85, align_steps=300, align_batch_size=512)
QUICK_RECIPE = Recipe(steps=20, adapt_steps=20, align_steps=10, align_batch_size=64)


class Tables(NamedTuple):
    """The files of a world, as stages take them."""

    labelled: str
    captioned: str
    products: str
    images: str
    pool: str

    @classmethod
    def write(cls, world: World, folder: Path) -> Tables:
        """Draw what is not there."""
        parts = (world.labelled, world.captioned, world.products, world.images)
        labelled, captioned, products, images = (str(write_slice(part, folder / part.file)) for part in parts)
        pool = folder / f"pool-{world.captioned.file}"
        return cls(labelled, captioned, products, images, str(write_pool(captioned, images, pool)))


def run(world: World, recipe: Recipe, out: Path) -> Report:
    """Run the method in `world` with `recipe`: mine, adapt, tune, realign, evaluate, report; see `mcip.demo`."""
    tables = Tables.write(world, out / "tables")
    labelled = tables.labelled
    mined = mine(labelled, tables.pool, out / "captions", BASE, k=recipe.k)
    # All the methods start from the same embeddings of the base.
    embeddings = images_folder(out / "captions" / "embeddings", read_table(labelled), models.load(BASE))
    adapted = adapt(labelled, out / "adapt", BASE, embeddings=embeddings, steps=recipe.adapt_steps)
    named = {"base": BASE, "adapt": str(adapted)}
    for method in METHODS:
        tuned = tune(
            labelled, out / "tuned" / method, BASE, method=method, captions=mined if method == "mcip" else None,
            embeddings=embeddings, caption_weight=recipe.caption_weight, steps=recipe.steps,
            batch_size=recipe.batch_size, lr=recipe.lr, center_init=recipe.center_init,
            center_lr_factor=recipe.center_lr_factor, transform=recipe.transform,
        )  # fmt: skip
        model = interpolate(str(tuned), BASE, out / method / "model", alpha=recipe.alpha)
        aligned = align(
            tables.captioned, out / f"{method}+re-a", str(model), steps=recipe.align_steps,
            batch_size=recipe.align_batch_size, lr=recipe.align_lr,
        )  # fmt: skip
        named |= {method: str(model), f"{method}+re-a": str(aligned)}
    results = measure_models(named, tasks(tables.products, tables.images), out / "results", suite="toyshop")
    return report(results, out, baseline="base", captions=mined, images=labelled)


def tasks(products: str, images: str) -> list[Task]:
    """What the models are measured on; the names are the keys of `report.json`."""
    return [
        Task("i2i_map", "i2i", products),
        Task("knn", "knn", products, split="query", index_split="index"),
        Task("zero_shot", "zero-shot", products, label="shape"),
        Task("zero_shot_colour_shape", "zero-shot", products, label="colour_shape"),
        Task("t2i_r5", "t2i", images),
    ]


def write_pool(captioned: str, images: str, path: Path) -> Path:
    """Write the captions of `captioned` without those that also occur among the test captions of `images`."""
    if not path.exists():
        tested = {caption for captions in read_table(images).captions for caption in captions}
        texts = [
            caption for captions in read_table(captioned).captions for caption in captions if caption not in tested
        ]
        with atomic_write(path) as temporary:
            pq.write_table(pa.table({"caption": texts}), temporary)
    return path
