"""Toyshop: the same seed gives the same bytes, everything draws something, captions say nothing of the fine detail."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mcip.data import read_table
from mcip.toyshop import captions, render, tables, world
from mcip.toyshop.tables import Slice, draw_product, write_slice


def test_the_same_slice_is_the_same_to_the_byte(tmp_path: Path) -> None:
    part = Slice("train", stream=9, products=3, images=2, captions=2)
    first = write_slice(part, tmp_path / "a.parquet")
    second = write_slice(part, tmp_path / "b.parquet")
    assert first.read_bytes() == second.read_bytes()
    rows = pq.read_table(first).to_pylist()
    assert rows == [row for number in range(3) for row in draw_product(part, number)]
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (render.SIZE, render.SIZE)
    assert len(read_table(first)) == 6
    assert len(set(read_table(first).ids)) == 6


def test_a_slice_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"there")
    assert write_slice(Slice("train", 9, 3), path).read_bytes() == b"there"


def products(stream: int, count: int) -> list[world.Product]:
    return [world.sample_product(np.random.default_rng([stream, number])) for number in range(count)]


def test_no_product_is_in_two_streams() -> None:
    drawn = [product for stream in range(1, 9) for product in products(stream, 100)]
    assert len(set(drawn)) == len(drawn)


def test_a_product_looks_alike_in_all_its_images_and_unlike_another() -> None:
    rows = draw_product(Slice("train", stream=9, products=1, images=3), 0)
    assert len({row["image"]["bytes"] for row in rows}) == 3
    assert len({row["label"] for row in rows}) == len({row["shape"] for row in rows}) == 1
    view = dataclasses.replace(render.sample_view(np.random.default_rng(0)), occluder=None)
    first, second = products(9, 2)
    assert np.array_equal(render.render(first, view), render.render(first, view))
    assert not np.array_equal(render.render(first, view), render.render(second, view))


@pytest.fixture
def view() -> render.View:
    return render.View("snow", 0.0, 0.8, (0.0, 0.0), 1.0, (0.0, 0.0), (1.0, 1.0, 1.0), 0.0, None, 3)


@pytest.fixture
def product() -> world.Product:
    return world.Product(
        "ball", ("red", "blue"), "plain", (0.8, 0.1, 0.1), (0.1, 0.1, 0.8), 2.0, 0.3, 0.2, 1.0, "disc", (0.0, 0.6, 0.0),
        (0.0, 0.0), 0.25,
    )  # fmt: skip


def share(first: np.ndarray, second: np.ndarray) -> float:
    """The share of pixels that differ by more than noise."""
    return float((np.abs(first.astype(int) - second.astype(int)).max(-1) > 40).mean())


def test_every_shape_draws_something_of_its_own(product: world.Product, view: render.View) -> None:
    axis = np.linspace(-1, 1, 64, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    insides = {name: field(u, v) <= 0 for name, field in render.SHAPE_FIELDS.items()}
    assert tuple(insides) == world.SHAPES
    for name, inside in insides.items():
        assert 0.08 < inside.mean() < 0.7, name
        others = [(inside ^ other).sum() / (inside | other).sum() for key, other in insides.items() if key != name]
        assert min(others) > 0.1, name
    drawn = {name: render.render(dataclasses.replace(product, shape=name), view) for name in world.SHAPES}
    assert all(share(drawn["ball"], image) > 0.03 for name, image in drawn.items() if name != "ball")


def test_every_pattern_emblem_and_scene_draws_something(product: world.Product, view: render.View) -> None:
    plain = render.render(product, view)
    for pattern in world.PATTERNS[1:]:
        assert share(plain, render.render(dataclasses.replace(product, pattern=pattern), view)) > 0.05, pattern
    emblems = [render.render(dataclasses.replace(product, emblem=emblem), view) for emblem in world.EMBLEMS]
    for place, image in enumerate(emblems):
        assert share(image, render.render(dataclasses.replace(product, emblem_at=(9.0, 9.0)), view)) > 0.005
        assert all(share(image, other) > 0 for other in emblems[place + 1 :])
    scenes = [render.render(product, dataclasses.replace(view, scene=scene)) for scene in world.SCENES]
    for place, image in enumerate(scenes):
        assert all(share(image, other) > 0.1 for other in scenes[place + 1 :])
    covered = dataclasses.replace(view, occluder=(0.0, 0.0, 0.4))
    assert share(plain, render.render(product, covered)) > 0.05


def test_captions_never_name_the_fine_detail(product: world.Product) -> None:
    rng = np.random.default_rng(0)
    fine = [field.name for field in dataclasses.fields(product) if field.name not in ("shape", "colours", "pattern")]
    for number in range(300):
        drawn = world.sample_product(np.random.default_rng([77, number]))
        other = dataclasses.replace(drawn, **{name: getattr(product, name) for name in fine})
        scene = str(rng.choice(world.SCENES))
        seed = int(rng.integers(2**31))
        texts = [captions.sample_caption(one, scene, np.random.default_rng(seed)) for one in (drawn, other)]
        assert texts[0] == texts[1]


def test_captions_name_only_what_is_there() -> None:
    texts = set()
    for number in range(2000):
        rng = np.random.default_rng([78, number])
        product = world.sample_product(rng)
        scene = str(rng.choice(world.SCENES))
        caption = captions.sample_caption(product, scene, rng)
        texts.add(caption)
        wrong = {
            word
            for table, true in (
                (captions.SHAPE_WORDS, {product.shape}),
                (captions.COLOUR_WORDS, set(product.colours)),
            )
            for name, words in table.items()
            if name not in true
            for word in words
        }
        # "diamond" and the like stand for one thing only; words that also occur in a scene are left aside.
        true = {word for words in (
            captions.SHAPE_WORDS[product.shape], *(captions.COLOUR_WORDS[colour] for colour in product.colours),
            *captions.SCENE_WORDS.values(),
        ) for text in words for word in text.split()}  # fmt: skip
        assert not (wrong - true) & set(re.findall(r"\w+", caption)), caption
        assert caption == caption.lower()
    assert len(texts) > 1500


def test_the_vocabulary_covers_every_caption() -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    known = set(tokenizer(captions.every_phrase()).unique().tolist())
    texts = []
    for number in range(1500):
        rng = np.random.default_rng([79, number])
        product = world.sample_product(rng)
        texts.append(captions.sample_caption(product, world.SCENES[number % len(world.SCENES)], rng))
    assert set(tokenizer(texts).unique().tolist()) <= known
    words = {word for phrase in captions.every_phrase() for word in phrase.split()}
    assert {word for caption in texts for word in caption.split()} <= words


def test_rows_have_the_names_that_zero_shot_asks_for() -> None:
    part = Slice("test", stream=5, products=1, images=3, captions=1, splits=("val", "test"))
    row, _, third = draw_product(part, 7)
    assert row["shape"] in world.SHAPES
    assert row["colour_shape"].split()[0] in world.COLOURS
    assert row["colour_shape"].endswith(row["shape"])
    assert (row["split"], row["label"], row["id"]) == ("val", "test-00007", "test-00007-0")
    assert (third["split"], third["label"], third["id"]) == ("val", "test-00007", "test-00007-2")
    assert tables.draw_product(Slice("test", stream=6, products=1), 7)[0]["image"] != row["image"]
