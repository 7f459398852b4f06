"""Mixed queries, "this product, but in red": how often they find it, against the plain sum of the similarities.

python benchmarks/mixed_queries.py            Toyshop: about 2 minutes on two cores
python benchmarks/mixed_queries.py --quick    fewer products
python benchmarks/mixed_queries.py --fashion fashion.parquet --model MODEL    by a model that knows such images

toyshop: a query is an image of a product and the name of another body colour. What is looked for are the two images
of the same product with that body colour and all else equal, among the images of all products in five colours. The
text is the colour alone ("red"), or names the kind of thing too ("a red toy").
fashion: a query is a test image and another colour in which there are images with the same title, but for the words
for colours, and the same type. They are looked for among all test images. The text is the colour ("navy blue"), or
the colour and type as the captions have them ("navy blue shirts for men").

Recall@10 in percent: of the query's image alone, its text alone, their plain sum, and of the three fusions of
`mcip search`, each comparing every image: sum, product, and BASIC. The number after +- is the standard error of the
difference between the fusion sum and the plain sum, over queries. --split val has the fashion images by which rules
are chosen.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

import mcip
from mcip.data.corpora import STYLES, SUBJECTS
from mcip.models import Model
from mcip.retrieval.contrast import Contrast
from mcip.retrieval.fused import basic, product
from mcip.retrieval.fusion import Background, Part
from mcip.toyshop.captions import sample_caption
from mcip.toyshop.render import render, sample_view
from mcip.toyshop.world import COLOURS, sample_product

STREAM = 40
COLUMNS = ("image", "text", "plain sum", "sum", "standard error", "product", "basic")
K = 10
# Two words of a colour's name in the captions of the fashion images.
_TWO_WORDS = ("navy", "off", "steel", "sea", "lime", "fluorescent", "coffee", "mushroom")


@dataclass
class Task:
    """Queries of an image and a text, and which images of the gallery each of them looks for."""

    gallery: NDArray[np.float32]
    images: NDArray[np.float32]
    texts: dict[str, NDArray[np.float32]]
    relevant: NDArray[np.bool_]
    left_out: NDArray[np.int64]
    captions: NDArray[np.float32]
    subjects: NDArray[np.float32]
    styles: NDArray[np.float32]


def embedded(model: Model, gallery_images: list[Image.Image]) -> NDArray[np.float32]:
    transform, parts = model.transform(), []
    for start in range(0, len(gallery_images), 256):
        pixels = torch.stack(
            [transform.prepare(gallery_image) for gallery_image in gallery_images[start : start + 256]]
        )
        parts.append(model.embed_pixels(transform.finish(pixels)).numpy())
    return np.concatenate(parts)


def texts_of(model: Model, texts: list[str]) -> NDArray[np.float32]:
    return model.encode(texts, batch_size=256)


def toyshop(model: Model, products: int) -> Task:
    """Draw products in five body colours each, two images per colour, and one more image as the query."""
    rng = np.random.default_rng([STREAM, 0])
    gallery_images: list[Image.Image] = []
    query_images: list[Image.Image] = []
    made: list[tuple[int, str]] = []
    sought: list[tuple[int, str]] = []
    captions: list[str] = []
    for number in range(products):
        product = sample_product(rng)
        others = [colour for colour in COLOURS if colour not in product.colours]
        bodies = dict.fromkeys(product.colours[:1], product)
        for colour in rng.choice(others, 4, replace=False).tolist():
            # A shade of the colour is drawn as that of any product is: by drawing products until one has it.
            shade = next(one for one in iter(lambda: sample_product(rng), None) if one.colours[0] == colour)
            bodies[colour] = replace(product, colours=(colour, product.colours[1]), body_rgb=shade.body_rgb)
        for colour, body in bodies.items():
            for _ in range(2):
                view = sample_view(rng)
                gallery_images.append(Image.fromarray(render(body, view)))
                made.append((number, colour))
                captions.append(sample_caption(body, view.scene, rng))
        query_images.append(Image.fromarray(render(product, sample_view(rng))))
        sought.append((number, list(bodies)[1]))
    relevant = np.array([[own == want for own in made] for want in sought])
    words = {
        "colour": texts_of(model, [colour for _, colour in sought]),
        "colour and kind": texts_of(model, [f"a {colour} toy" for _, colour in sought]),
    }
    none = np.full(len(sought), -1)
    gallery, images = embedded(model, gallery_images), embedded(model, query_images)
    return Task(gallery, images, words, relevant, none, texts_of(model, captions[::5]), *corpora(model))


def corpora(model: Model) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The texts that BASIC learns from."""
    return texts_of(model, list(SUBJECTS)), texts_of(model, list(STYLES))


def fashion(model: Model, path: Path, split: str, most: int | None) -> Task:
    """The images of a split whose title occurs in several colours."""
    table = mcip.read_table(path, split)
    rows = range(len(table) if most is None else min(most, len(table)))
    colours, types = zip(*(split_colour(table.captions[row][-1]) for row in rows), strict=True)
    words = {word for colour in colours for word in colour.split()}
    titles = [" ".join(w for w in table.captions[row][0].lower().split() if w not in words) for row in rows]
    same: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        same[titles[row], types[row]][colours[row]].append(row)
    query_rows, sought_colours, relevant = [], [], []
    for by_colour in same.values():
        for colour, found in by_colour.items():
            others = [row for other, rows_of in by_colour.items() if other != colour for row in rows_of]
            if others:
                query_rows.append(others[0])
                sought_colours.append(colour)
                relevant.append(np.isin(np.arange(len(rows)), found))
    gallery = embedded(model, [table.image(row) for row in rows])
    colours_and_kinds = [f"{colour} {types[row]}" for colour, row in zip(sought_colours, query_rows, strict=True)]
    texts = {"colour": texts_of(model, sought_colours), "colour and kind": texts_of(model, colours_and_kinds)}
    captions = texts_of(model, [table.captions[row][-1] for row in rows][::20])
    return Task(
        gallery, gallery[query_rows], texts, np.stack(relevant), np.array(query_rows), captions, *corpora(model)
    )


def split_colour(caption: str) -> tuple[str, str]:
    """The colour and the rest of "navy blue shirts for men"."""
    words = caption.split()
    count = 2 if words[0] in _TWO_WORDS else 1
    return " ".join(words[:count]), " ".join(words[count:])


def recalls(scores: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
    """Recall@10 of each query; the image that is asked with does not count."""
    scores = scores.copy()
    rows = np.flatnonzero(task.left_out >= 0)
    scores[rows, task.left_out[rows]] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    found = np.take_along_axis(task.relevant, best, 1).sum(1)
    return np.asarray(found / np.minimum(K, task.relevant.sum(1)), np.float64)


def measure(task: Task) -> dict[str, dict[str, float]]:
    """Recall of each way, for each form of the text."""
    some = np.random.default_rng(0).permutation(len(task.gallery))[:1000]
    background = Background.of(task.gallery[some], task.captions)
    contrast = Contrast.of(task.subjects, task.styles, background)
    image = task.images @ task.gallery.T
    figures = {}
    for form, texts in task.texts.items():
        text = texts @ task.gallery.T
        fused: dict[str, list[NDArray[np.float32]]] = {"sum": [], "product": [], "basic": []}
        for one, other in zip(task.images, texts, strict=True):
            parts = [Part(one, "image"), Part(other, "text")]
            fused["sum"].append(task.gallery @ background.standardized(parts)[0])
            fused["product"].append(product(parts, background).scores(task.gallery))
            fused["basic"].append(basic(parts, background, contrast).scores(task.gallery))
        plain = recalls(image + text, task)
        ours = {name: recalls(np.stack(scores), task) for name, scores in fused.items()}
        figures[form] = {
            "image": 100 * float(recalls(image, task).mean()),
            "text": 100 * float(recalls(text, task).mean()),
            "plain sum": 100 * float(plain.mean()),
            **{name: 100 * float(found.mean()) for name, found in ours.items()},
            "standard error": 100 * float((ours["sum"] - plain).std() / np.sqrt(len(plain))),
            "queries": len(plain),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images")
    parser.add_argument("--fashion", type=Path, help="fashion.parquet")
    parser.add_argument("--model", default="toyshop", help="the model for the fashion images")
    parser.add_argument("--split", default="test", help="of the fashion images")
    options = parser.parse_args()
    figures: dict[str, Any] = {"toyshop": measure(toyshop(mcip.load("toyshop"), 30 if options.quick else 500))}
    if options.fashion:
        figures["fashion"] = measure(
            fashion(mcip.load(options.model), options.fashion, options.split, 800 if options.quick else None)
        )
    table = Table(
        "images", "text", "queries", "image alone", "text alone", "plain sum", "sum", "+-", "product", "basic"
    )
    for name, forms in figures.items():
        for form, row in forms.items():
            shown = [f"{row[key]:.1f}" for key in COLUMNS]
            table.add_row(name, form, f"{row['queries']:,}", *shown)
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
