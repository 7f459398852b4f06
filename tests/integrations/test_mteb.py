"""`mteb` runs our models, and its Flickr30k, CUB and SOP agree with our own evaluation on small copies."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from mcip import models
from mcip.models import Model
from mcip.stages.evaluate import evaluate
from mcip.toyshop.tables import Slice, draw_product

mteb = pytest.importorskip("mteb")

CLASSES, IMAGES, CAPTIONS = 8, 4, 5


@pytest.fixture(scope="module")
def products() -> list[list[dict[str, Any]]]:
    """The rows of each product."""
    part = Slice("copy", stream=140, products=CLASSES, images=IMAGES, captions=CAPTIONS)
    return [draw_product(part, number) for number in range(CLASSES)]


@pytest.fixture(scope="module")
def model(base: Path) -> Model:
    return models.load(base)


def opened(row: dict[str, Any]) -> Image.Image:
    return Image.open(BytesIO(row["image"]["bytes"])).convert("RGB")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, products: list[list[dict[str, Any]]]) -> Path:
    """Folders in the official layout of the three benchmarks."""
    root = tmp_path_factory.mktemp("benchmarks")
    cub, sop, flickr = root / "CUB_200_2011/images", root / "Stanford_Online_Products", root / "flickr30k"
    for number in range(100):
        write(cub / f"{number + 1:03d}.Bird" / "0.png", Image.new("RGB", (8, 8)))
    lines, captions = ["image_id class_id super_class_id path"], ["image,caption"]
    for number, rows in enumerate(products):
        for at, row in enumerate(rows):
            image = opened(row)
            write(cub / f"{number + 101:03d}.Bird" / f"{at}.png", image)
            write(sop / "a_final" / f"{number}_{at}.png", image)
            write(flickr / "flickr30k-images" / f"{number}{at}.jpg", image, "PNG")
            lines.append(f"{IMAGES * number + at} {number} 1 a_final/{number}_{at}.png")
            captions += [f"{number}{at}.jpg,{caption}" for caption in texts(row, number, at)]
    (sop / "Ebay_test.txt").write_text("\n".join(lines) + "\n")
    (flickr / "flickr30k_test_karpathy.txt").write_text("\n".join(captions) + "\n")
    return root


def texts(row: dict[str, Any], number: int, at: int) -> list[str]:
    return [f"{caption} {number} {at} {place}" for place, caption in enumerate(row["captions"])]


def write(path: Path, image: Image.Image, kind: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind)


def copy_of(name: str, queries: Sequence[dict[str, Any]], corpus: Sequence[dict[str, Any]], relevant: Any) -> Any:
    """The task of `mteb` with other data."""
    (task,) = mteb.get_tasks(tasks=[name])
    split = {
        "queries": datasets.Dataset.from_list(list(queries)), "corpus": datasets.Dataset.from_list(list(corpus)),
        "relevant_docs": relevant, "top_ranked": None,
    }  # fmt: skip
    task.dataset, task.data_loaded = {"default": {"test": split}}, True
    return task


def scores(model: Model, task: Any, **options: Any) -> dict[str, float]:
    from mcip.integrations.mteb import MtebModel

    result = mteb.evaluate(
        MtebModel(model, **options), task, cache=None, co2_tracker=False, show_progress_bar=False,
        encode_kwargs={"batch_size": 7},
    )  # fmt: skip
    found: dict[str, float] = result.task_results[0].scores["test"][0]
    return found


def ours(root: Path, base: Path, out: Path, suite: str) -> dict[str, float]:
    evaluation = evaluate([f"base={base}"], out, data=str(root), suite=suite, preset="standard", allow_counts=True)
    (measured,) = evaluation[0].measured.values()
    return dict(measured.metrics)


@pytest.mark.parametrize(("name", "suite"), [("CUB200I2IRetrieval", "cub"), ("SOPI2IRetrieval", "sop")])
def test_image_to_image(
    name: str, suite: str, model: Model, base: Path, root: Path, products: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"{number}-{at}", "image": opened(row)} for number, row_list in enumerate(products)
        for at, row in enumerate(row_list)
    ]  # fmt: skip
    relevant = {
        one["id"]: {other["id"]: 1 for other in rows if other["id"].split("-")[0] == one["id"].split("-")[0]}
        for one in rows
    }
    found = scores(model, copy_of(name, rows, rows, relevant))
    expected = ours(root, base, tmp_path / "out", suite)
    assert 0.1 < expected["r1"] < 1
    assert 100 * found["hit_rate_at_1"] == pytest.approx(100 * expected["r1"], abs=0.1)


@pytest.mark.parametrize(
    ("name", "suite"), [("Flickr30kT2IRetrieval", "flickr30k"), ("Flickr30kI2TRetrieval", "flickr30k-i2t")]
)
def test_texts_and_images(
    name: str, suite: str, model: Model, base: Path, root: Path, products: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    pairs: list[tuple[str, str]] = []
    for number, rows in enumerate(products):
        for at, row in enumerate(rows):
            images.append({"id": f"i{number}-{at}", "image": opened(row)})
            for place, text in enumerate(texts(row, number, at)):
                captions.append({"id": f"t{number}-{at}-{place}", "text": text})
                pairs.append((captions[-1]["id"], images[-1]["id"]))
    forward = name == "Flickr30kT2IRetrieval"
    relevant: dict[str, dict[str, int]] = {}
    for text, image in pairs:
        query, target = (text, image) if forward else (image, text)
        relevant.setdefault(query, {})[target] = 1
    queries, corpus = (captions, images) if forward else (images, captions)
    found = scores(model, copy_of(name, queries, corpus, relevant))
    expected = ours(root, base, tmp_path / "out", suite)
    for k in (1, 5, 10):
        assert 100 * found[f"hit_rate_at_{k}"] == pytest.approx(100 * expected[f"r{k}"], abs=0.1)
    assert 0 < expected["r10"] < 1


def test_what_is_encoded(model: Model) -> None:
    from mcip.integrations.mteb import MtebModel

    (task,) = mteb.get_tasks(tasks=["Flickr30kT2IRetrieval"])
    wrapped = MtebModel(model, name="me/mine", transform="paper")
    assert wrapped.mteb_model_meta is not None
    assert wrapped.mteb_model_meta.name == "me/mine"
    assert wrapped.mteb_model_meta.revision == model.fingerprint
    images = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    batches: Any = [{"image": images, "text": ["red", "blue"]}]
    where = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default"}
    fused = wrapped.encode(batches, **where)
    both = model.encode(images, transform="paper") + model.encode(["red", "blue"])
    np.testing.assert_allclose(fused, both / np.linalg.norm(both, axis=1, keepdims=True), atol=1e-6)
    texts_only = wrapped.encode(batches, prompt_type=mteb.types.PromptType.query, **where)
    np.testing.assert_allclose(texts_only, model.encode(["red", "blue"]), atol=1e-6)
