"""The numbers of each protocol on fixed random embeddings, against loops written from the definitions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcip.core.choices import TransformName
from mcip.data import Table
from mcip.data.corpora import STYLES, SUBJECTS
from mcip.evaluation.benchmarks import BENCHMARKS
from mcip.evaluation.benchmarks.base import Retrieval, TextRetrieval
from mcip.evaluation.benchmarks.imagenet import WNIDS
from mcip.evaluation.dataset_roots import Places
from mcip.evaluation.encoders import Encoded
from mcip.evaluation.measure import measure_data
from mcip.evaluation.presets import PRESETS, PresetName
from mcip.evaluation.suites import benchmark_task
from tests.evaluation import layouts

DIM = 6


def vector(name: str) -> NDArray[np.float32]:
    """The unit vector of a name: always the same, near that of no other."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    values = np.random.default_rng(seed).standard_normal(DIM)
    return (values / np.linalg.norm(values)).astype(np.float32)


class FixedEncoder:
    """Gives every id, caption and class name its own vector; images named in `lost` cannot be read."""

    def __init__(self, *lost: str) -> None:
        self.lost = lost
        self.transforms: set[str] = set()

    def images(self, table: Table, transform: TransformName) -> Encoded:
        self.transforms.add(transform)
        rows = [row for row, name in enumerate(table.ids) if name not in self.lost]
        vectors = np.array([vector(table.ids[row]) for row in rows])
        return Encoded([vectors[:2], vectors[2:]], np.array(rows, np.int64))

    def captions(self, captions: Sequence[str], name: str) -> NDArray[np.float32]:
        return np.array([vector(caption) for caption in captions])

    def classes(self, names: Mapping[str, str], templates: Sequence[str]) -> NDArray[np.float32]:
        return np.array([vector(name) for name in names.values()])


def trapezoid_of(relevant: Sequence[bool]) -> float:
    """Average precision as i-CIR's own evaluation has it, from its definition."""
    ranks = [rank for rank, one in enumerate(relevant) if one]
    before = [1.0 if rank == 0 else found / rank for found, rank in enumerate(ranks)]
    after = [(found + 1) / (rank + 1) for found, rank in enumerate(ranks)]
    return float(np.mean([(one + other) / 2 for one, other in zip(before, after, strict=True)]))


def test_icir_is_a_mean_over_objects_of_means_over_queries(benchmarks: Path) -> None:
    lost = "query/temple/1.jpg"
    data = layouts.read(benchmarks, "icir")
    task = benchmark_task(BENCHMARKS["icir"], str(benchmarks), PRESETS["paper"])
    measured = measure_data(FixedEncoder(lost), task, data)
    subjects, styles = (np.array([vector(text) for text in texts]) for texts in (SUBJECTS, STYLES))
    # Fewer than 1,000 images: centers and least scores are of the whole gallery.
    everything = np.array([vector(name) for name in data.gallery.ids])
    centered = everything - everything.mean(0)
    scatter = 0.8 * np.cov((subjects - subjects.mean(0)).T) - 0.2 * (
        (styles - subjects.mean(0)).T @ (styles - subjects.mean(0)) / (len(styles) - 1)
    )
    values, axes = np.linalg.eigh(scatter)
    projection = sum(np.outer(axis, axis) for value, axis in zip(values, axes.T, strict=True) if value > 0)
    low_image = min(float(one @ projection @ other) for one in centered for other in centered)
    low_text = min(float((text - subjects.mean(0)) @ image) for text in subjects for image in centered)

    def basic(image: NDArray[Any], text: NDArray[Any], x: NDArray[Any]) -> float:
        x = x - everything.mean(0)
        u = max(0.0, (float((image - everything.mean(0)) @ projection @ x) - low_image) / abs(low_image))
        v = max(0.0, (float((text - subjects.mean(0)) @ x) - low_text) / abs(low_text))
        return u * v - 0.1 * (u + v) ** 2

    rules: dict[str, Callable[..., float]] = {
        "text": lambda image, text, x: float(text @ x), "image": lambda image, text, x: float(image @ x),
        "sum": lambda image, text, x: float(image @ x + text @ x),
        "product": lambda image, text, x: max(0.0, float(image @ x)) * max(0.0, float(text @ x)), "basic": basic,
    }  # fmt: skip
    by_query = []
    for rule, score in rules.items():
        by_object: dict[str, list[float]] = {}
        for number, (text, label) in enumerate(zip(data.texts, data.objects, strict=True)):
            name = data.queries.ids[data.query_rows[number]]
            if name == lost:
                continue
            entries = data.entries[label]
            scores = [score(vector(name), vector(text), vector(data.gallery.ids[row])) for row, _ in entries]
            order = sorted(range(len(entries)), key=lambda at: -scores[at])
            by_object.setdefault(label, []).append(trapezoid_of([entries[at][1] == text for at in order]))
        assert measured[f"map_{rule}"] == pytest.approx(np.mean([np.mean(one) for one in by_object.values()]))
        by_query = [value for one in by_object.values() for value in one]
    assert measured["map_queries"] == pytest.approx(np.mean(by_query))


def ranking(query: str, items: Sequence[str]) -> list[int]:
    """Items in descending order of similarity, of equal ones the first."""
    return sorted(range(len(items)), key=lambda item: (-float(vector(query) @ vector(items[item])), item))


def average_precision(hits: Sequence[bool], relevant: int) -> float:
    found, total = 0, 0.0
    for rank, hit in enumerate(hits, 1):
        if hit:
            found += 1
            total += found / rank
    return total / relevant


def trapezoid(order: Sequence[int], relevant: set[int], ignored: set[int]) -> float:
    """revisitop's average precision: the area under the precision-recall curve by trapezoids."""
    kept = [item for item in order if item not in ignored]
    found, area, previous = 0, 0.0, 1.0
    for rank, item in enumerate(kept):
        if item in relevant:
            before = previous if rank == 0 else found / rank
            found += 1
            area += (before + found / (rank + 1)) / 2 / len(relevant)
    return area


def ask(root: Path, name: str, preset: PresetName = "paper", *lost: str) -> tuple[Any, dict[str, float], FixedEncoder]:
    """A benchmark's data and its metrics with fixed embeddings."""
    places = Places(str(root))
    data = BENCHMARKS[name].read(places, PRESETS[preset])
    encoder = FixedEncoder(*lost)
    return data, measure_data(encoder, benchmark_task(BENCHMARKS[name], str(root), PRESETS[preset]), data), encoder


@pytest.mark.parametrize("preset", ["paper", "standard"])
@pytest.mark.parametrize("name", ["gpr1200", "instre", "adience", "cub", "cars", "sop"])
def test_image_to_image_by_classes(benchmarks: Path, name: str, preset: PresetName) -> None:
    data, found, encoder = ask(benchmarks, name, preset)
    ids, labels = data.queries.ids, data.queries.labels
    precisions, recalls = [], {k: list[bool]() for k in data.ks}
    for query, image in enumerate(ids):
        order = ranking(image, ids)
        if preset == "standard":
            order = [item for item in order if item != query]
        elif name in ("cub", "cars", "sop"):
            order = order[1:]
        hits = [labels[item] == labels[query] for item in order]
        precisions.append(average_precision(hits, sum(hits)))
        for k in data.ks:
            recalls[k].append(any(hits[:k]))
    assert found["map"] == pytest.approx(np.mean(precisions), abs=1e-6)
    for k in data.ks:
        assert found[f"r{k}"] == pytest.approx(np.mean(recalls[k]), abs=1e-6)
    assert encoder.transforms == {"paper" if preset == "paper" else "model"}
    if name == "gpr1200":
        nature = [value for value, label in zip(precisions, labels, strict=True) if 200 <= int(label) < 400]
        assert found["map_nature"] == pytest.approx(np.mean(nature), abs=1e-6)
        first = [value for value, label in zip(precisions, labels, strict=True) if int(label) < 1000]
        assert found["map_gpr1000"] == pytest.approx(np.mean(first), abs=1e-6)
        assert "map_products" not in found


def test_a_query_kept_in_its_ranking_is_always_a_hit(benchmarks: Path) -> None:
    assert ask(benchmarks, "gpr1200")[1]["r1"] == 1.0
    assert ask(benchmarks, "gpr1200", "standard")[1]["r1"] < 1.0


@pytest.mark.parametrize("name", ["roxford", "roxford-1m", "rparis"])
def test_revisited_by_difficulty_with_images_missing(benchmarks: Path, name: str) -> None:
    lost = "jpg/all_souls_000001.jpg"
    data, found, _ = ask(benchmarks, name, "paper", lost, "jpg/all_souls_000006.jpg")
    ids = [image for table in data.gallery for image in table.ids]
    gone = {ids.index(lost), ids.index("jpg/all_souls_000006.jpg")}
    for level, good, bad in (("easy", ("easy",), ("junk", "hard")), ("medium", ("easy", "hard"), ("junk",)),
                             ("hard", ("hard",), ("junk", "easy"))):  # fmt: skip
        areas = []
        for image, truth in zip(data.queries.ids, data.truth, strict=True):
            relevant = {row for kind in good for row in truth[kind]} - gone
            ignored = {row for kind in bad for row in truth[kind]} | gone
            if relevant:
                areas.append(trapezoid(ranking(image, ids), relevant, ignored))
        assert found[f"map_{level}"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert found["map"] == found["map_medium"]


def test_classic_instre_has_one_difficulty(benchmarks: Path) -> None:
    data, found, _ = ask(benchmarks, "instre-classic")
    ids = data.gallery[0].ids
    expected = [
        trapezoid(ranking(image, ids), set(truth["easy"]), set())
        for image, truth in zip(data.queries.ids, data.truth, strict=True)
    ]
    assert found == pytest.approx({"map": np.mean(expected)}, abs=1e-6)


@pytest.mark.parametrize("name", ["ilias-core", "ilias"])
@pytest.mark.parametrize("at", [2, 1000])
def test_ilias_cuts_its_rankings(benchmarks: Path, name: str, at: int) -> None:
    from dataclasses import replace

    data, _, _ = ask(benchmarks, name)
    texts, _, _ = ask(benchmarks, f"{name}-t2i" if name == "ilias" else "ilias-core-t2i")
    ids = [image for table in data.gallery for image in table.ids]
    labels = [label for table in data.gallery for label in table.labels]
    cases = {
        "i2i": (replace(data, at=at), data.queries.ids, data.queries.labels),
        "t2i": (replace(texts, at=at), texts.texts, texts.labels),
    }
    for kind, (data_at, queries, expected) in cases.items():
        assert isinstance(data_at, Retrieval if kind == "i2i" else TextRetrieval)
        task = benchmark_task(BENCHMARKS[name], str(benchmarks), PRESETS["paper"])
        found = measure_data(FixedEncoder(), task, data_at)
        precisions = []
        for query, label in zip(queries, expected, strict=True):
            hits = [labels[item] == label for item in ranking(query, ids)][:at]
            precisions.append(average_precision(hits, min(at, labels.count(label))))
        assert found[f"map@{at}"] == pytest.approx(np.mean(precisions), abs=1e-6)


@pytest.mark.parametrize("name", ["imagenet", "imagenet-v2", "imagenet-sketch", "imagenet-a", "aircraft", "flowers"])
def test_weighted_votes_of_all_training_classes(benchmarks: Path, name: str) -> None:
    data, found, encoder = ask(benchmarks, f"knn-{name}")
    hits: dict[int, list[bool]] = {1: [], 5: []}
    for image, label in zip(data.test.ids, data.test.labels, strict=True):
        votes: dict[str, float] = {}
        for item in ranking(image, data.train.ids)[:21]:
            weight = np.exp(float(vector(image) @ vector(data.train.ids[item])) / 0.1)
            votes[data.train.labels[item]] = votes.get(data.train.labels[item], 0.0) + weight
        best = sorted(votes, key=lambda key: (-votes[key], key))
        for n in hits:
            hits[n].append(label in best[:n])
    assert found == pytest.approx({f"top{n}": np.mean(values) for n, values in hits.items()}, abs=1e-6)
    assert encoder.transforms == {"paper"}


@pytest.mark.parametrize("name", ["imagenet", "imagenet-v2", "imagenet-a", "imagenet-r", "objectnet"])
def test_zero_shot_chooses_among_the_classes_of_the_data_set(benchmarks: Path, name: str) -> None:
    data, found, encoder = ask(benchmarks, f"zero-shot-{name}")
    keys = [WNIDS[1], WNIDS[2]] if name in ("imagenet-a", "imagenet-r") else list(data.names)
    hits = []
    for image, label in zip(data.images.ids, data.images.labels, strict=True):
        hits.append(keys[ranking(image, [data.names[key] for key in keys])[0]] == label)
    assert found["top1"] == pytest.approx(np.mean(hits), abs=1e-6)
    assert encoder.transforms == {"model"}


@pytest.mark.parametrize("name", ["flickr30k", "coco"])
def test_captions_and_images_both_ways(benchmarks: Path, name: str) -> None:
    data, to_images, encoder = ask(benchmarks, name)
    _, to_texts, _ = ask(benchmarks, f"{name}-i2t")
    captions = [(text, row) for row, texts in enumerate(data.images.captions) for text in texts]
    texts, ids = [text for text, _ in captions], data.images.ids
    for k in (1, 5, 10):
        found = [row in ranking(text, ids)[:k] for text, row in captions]
        assert to_images[f"r{k}"] == pytest.approx(np.mean(found), abs=1e-6)
        found_texts = [
            any(captions[item][1] == row for item in ranking(image, texts)[:k]) for row, image in enumerate(ids)
        ]
        assert to_texts[f"r{k}"] == pytest.approx(np.mean(found_texts), abs=1e-6)
    assert encoder.transforms == {"model"}


def test_captions_of_unreadable_images_are_not_asked(benchmarks: Path) -> None:
    lost = "flickr30k-images/1007129817.jpg"
    data, found, _ = ask(benchmarks, "flickr30k", "paper", lost)
    left = [row for row, image in enumerate(data.images.ids) if image != lost]
    ids = [data.images.ids[row] for row in left]
    hits = [ranking(text, ids)[0] == place for place, row in enumerate(left) for text in data.images.captions[row]]
    assert found["r1"] == pytest.approx(np.mean(hits), abs=1e-6)


def test_the_merged_classes_of_instre_change_its_number(benchmarks: Path) -> None:
    paper, standard = (ask(benchmarks, "instre", preset)[1]["map"] for preset in PRESETS)
    assert paper != standard


def test_unlabelled_gallery_images_are_never_relevant(tmp_path: Path) -> None:
    layouts.ilias(tmp_path)
    core, large = (ask(tmp_path, name)[1] for name in ("ilias-core", "ilias"))
    assert large["map@1000"] <= core["map@1000"]
