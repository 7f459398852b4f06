"""Mixed queries: how the parts of a query become one ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from mcip.retrieval.fusion import Background, Part
from mcip.retrieval.index import Index
from mcip.retrieval.results import Results

from .conftest import cosines


def naive_scores(index: Index, parts: list[tuple[np.ndarray[Any, Any], str, float]], names: list[str]) -> list[float]:
    """The combined score of each image, by the words of `Background.combine` and `Background.standardized`."""
    background, vectors = index.engine.background, [index.vector(name).astype(np.float64) for name in names]
    on_sample = {kind: np.zeros(len(background.sample)) for kind in ("image", "text", "away")}
    on_images = {kind: np.zeros(len(names)) for kind in on_sample}
    covariance = np.mean([np.outer(one, one) for one in background.sample.astype(np.float64)], 0)
    whitening = fractional_matrix_power(covariance + 0.3 * np.diag(covariance).mean() * np.eye(len(covariance)), -0.5)
    for query, kind, weight in parts:
        center = background.image_mean if kind == "image" else background.text_mean
        centered = query - center
        if kind == "image":
            centered = whitening @ centered
        scores = np.array([float(np.dot(centered, vector)) for vector in background.sample])
        sum_of = kind if weight > 0 else "away"
        on_sample[sum_of] += weight * scores / np.std(scores)
        for at, vector in enumerate(vectors):
            score = float(np.dot(centered, vector - background.image_mean))
            on_images[sum_of][at] += weight * score / float(np.std(scores))
    correlation = np.corrcoef(on_sample["image"], on_sample["text"])[0, 1]
    unexplained = 1 - max(0.0, float(correlation)) ** 2
    combined, everywhere = (
        unexplained * scores["image"] + scores["text"] + scores["away"] for scores in (on_images, on_sample)
    )
    return list(combined / np.std(everywhere))


def test_an_image_counts_for_what_the_text_does_not_say() -> None:
    """Shape and colour lie along two axes; the text names both, the image has the shape in another colour."""
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(4000, 4)).astype(np.float32)
    background = Background.of(sample, np.zeros((1, 4), np.float32))
    shape, colour = np.eye(4, dtype=np.float32)[:2]
    image, both = Part((shape - colour * 0.5), "image"), Part((shape + colour), "text")
    plain = Part(colour, "text")
    r = 0.5 / (1.25 * 2) ** 0.5
    vector, _ = background.combine([image, both])
    expected = (1 - r**2) * (shape - colour * 0.5) / 1.25**0.5 + (shape + colour) / 2**0.5
    np.testing.assert_allclose(vector, expected, atol=0.05)
    # What contradicts the image leaves its weight alone.
    vector, _ = background.combine([image, plain])
    np.testing.assert_allclose(vector, (shape - colour * 0.5) / 1.25**0.5 + colour, atol=0.05)
    # Two images, or two texts, do not weaken each other.
    vector, _ = background.combine([image, Part(shape, "image")])
    np.testing.assert_allclose(vector, (shape - colour * 0.5) / 1.25**0.5 + shape, atol=0.05)


def test_what_is_particular_about_an_image_counts_most() -> None:
    """Nearly all variance of the index lies along one axis: of an image off both axes the other one counts more."""
    sample = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32) * np.array([3, 0.1], np.float32)
    background = Background.of(sample, np.zeros((1, 2), np.float32))
    shrunk = 0.3 * (3**2 + 0.1**2) / 2
    particular = np.array([(3**2 + shrunk) ** -0.5, (0.1**2 + shrunk) ** -0.5])
    one = np.ones(2, np.float32)
    for part, direction in ((Part(one, "image"), particular), (Part(one, "text"), one)):
        vector, _ = background.combine([part])
        np.testing.assert_allclose(vector / vector[0], direction / direction[0], atol=0.05)


def test_several_parts_are_added_in_their_own_deviations(index: Index, names: list[str]) -> None:
    query: dict[str, Any] = {
        "image": ["id:" + names[1], "id:" + names[20]], "text": ["blue", "a red mug"], "weights": [1, 0.5, 2, 0.25],
        "negative": ["striped", "id:" + names[9]],
    }  # fmt: skip
    texts = index.encode_texts(["blue", "a red mug", "striped"])
    expected = naive_scores(
        index,
        [
            (index.vector(names[1]), "image", 1), (index.vector(names[20]), "image", 0.5),
            (texts[0], "text", 2), (texts[1], "text", 0.25), (texts[2], "text", -0.5),
            (index.vector(names[9]), "image", -0.5),
        ],
        names,
    )  # fmt: skip
    found = index.search(**query, k=36)
    assert sorted(hit.id for hit in found) == names
    assert [hit.score for hit in found] == pytest.approx(sorted(expected, reverse=True), abs=0.02)
    assert found[0].id == names[int(np.argmax(expected))]


def test_a_weight_of_zero_leaves_a_part_out(index: Index, names: list[str]) -> None:
    whole = index.search(image=["id:" + names[1], "id:" + names[20]], weights=[1, 0], k=36)
    assert whole == index.search(image="id:" + names[1], k=36)


def test_negatives_push_away(index: Index, names: list[str]) -> None:
    away = cosines(index, index.vector(names[6]), names)

    def likeness(results: Results) -> float:
        """How much the ranking is that of the negative image."""
        return float(np.corrcoef([hit.score for hit in results], [away[hit.id] for hit in results])[0, 1])

    query: dict[str, Any] = {"image": "id:" + names[5], "text": "a red mug", "k": 36}
    before = likeness(index.search(**query))
    once = likeness(index.search(**query, negative="id:" + names[6]))
    often = likeness(index.search(**query, negative=["id:" + names[6]] * 4))
    assert often < once < before
