"""k-NN, zero-shot and cross-modal recall against loops and scikit-learn."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from mcip.core.errors import ConfigError, DataError
from mcip.metrics import cross_modal_recall, knn_accuracy, knn_classify, top_accuracy, zero_shot_classify


def naive_votes(train: NDArray[Any], labels: list[Any], query: NDArray[Any], k: int, temperature: float) -> list[Any]:
    scores = [float(query @ row) for row in train]
    votes: dict[Any, list[float]] = defaultdict(list)
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]:
        votes[labels[i]].append(math.exp((scores[i] - max(scores)) / temperature))
    return sorted(votes, key=lambda label: (-math.fsum(votes[label]), label))


@settings(max_examples=60, deadline=None)
@example(seed=10, k=10, temperature=1.0, kind=int)  # two classes whose votes are equal
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 30),
    temperature=st.sampled_from([0.1, 1.0, 10.0]),
    kind=st.sampled_from([int, str]),
)
def test_knn_equals_a_loop(seed: int, k: int, temperature: float, kind: type) -> None:
    rng = np.random.default_rng(seed)
    train, test = rng.integers(-2, 3, (25, 3)) / 2, rng.integers(-2, 3, (7, 3)) / 2
    labels = [kind(3 * n) for n in rng.integers(0, 5, 25)]
    expected = [naive_votes(train, labels, query, k, temperature) for query in test]
    found = knn_classify(train, labels, test, k, temperature)
    assert found.tolist() == [ranked[0] for ranked in expected]
    test_labels = [kind(3 * n) for n in rng.integers(0, 6, 7)]
    accuracy = knn_accuracy(train, labels, test, test_labels, k, temperature, tops=(1, 2, 5))
    for n in (1, 2, 5):
        hits = [label in ranked[:n] for label, ranked in zip(test_labels, expected, strict=True)]
        assert accuracy[n] == pytest.approx(np.mean(hits))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), temperature=st.sampled_from([0.05, 0.1, 1.0]))
def test_equal_votes_in_any_order_go_to_the_class_that_sorts_first(seed: int, size: int, temperature: float) -> None:
    # Every class has the same neighbours, whose votes are summed in another order for each.
    rng = np.random.default_rng(seed)
    neighbours = rng.standard_normal((size, 16)).astype(np.float32)
    train = np.concatenate([rng.permutation(neighbours) for _ in range(7)])
    labels = np.repeat(rng.permutation(7), size)
    test = rng.standard_normal((20, 16)).astype(np.float32)
    assert knn_classify(train, labels, test, len(train), temperature).tolist() == [0] * 20
    hits = knn_accuracy(train, labels, test, np.full(20, 3), len(train), temperature, tops=(3, 4))
    assert hits == {3: 0.0, 4: 1.0}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.sampled_from([2, 64, 511, 768]), classes=st.integers(1, 40))
def test_equal_classes_and_images_are_classified_alike(seed: int, dim: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    class_embeddings = np.repeat(rng.standard_normal((1, dim)), classes, 0)
    images = rng.standard_normal((5, dim))
    assert zero_shot_classify(images, class_embeddings).tolist() == [0] * 5
    ranked = zero_shot_classify(images, class_embeddings, top=5)
    np.testing.assert_array_equal(ranked, np.broadcast_to(np.arange(min(5, classes)), ranked.shape))


def test_knn_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((2, 300, 6)).astype(np.float32)
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    test /= np.linalg.norm(test, axis=1, keepdims=True)
    labels = rng.integers(0, 7, 300)
    peer = KNeighborsClassifier(21, weights=lambda d: np.exp((1 - d) / 0.1), metric="cosine").fit(train, labels)
    np.testing.assert_array_equal(knn_classify(train, labels, test), peer.predict(test))


def test_knn_with_fewer_test_items_than_a_hundred_and_fewer_classes_than_five() -> None:
    # The reference's blocks of N // 100 rows crash here.
    x = np.eye(3, dtype=np.float32)
    assert knn_accuracy(x, [5, 5, 9], x[:1], [5]) == {1: 1.0, 5: 1.0}
    assert knn_accuracy(x, [5, 5, 9], x[:1], [7]) == {1: 0.0, 5: 0.0}
    assert knn_classify(x, ["b", "a", "a"], x, k=1).tolist() == ["b", "a", "a"]


def test_knn_returns_a_tensor_for_tensor_labels() -> None:
    x = torch.eye(3)
    found = knn_classify(x, torch.tensor([4, 2, 2]), x, k=1)
    assert isinstance(found, torch.Tensor)
    assert found.tolist() == [4, 2, 2]


def test_knn_equal_votes_go_to_the_class_that_sorts_first() -> None:
    assert knn_classify(np.ones((2, 1)), ["z", "a"], np.ones((1, 1)), k=2).tolist() == ["a"]


def test_zero_shot_and_top_accuracy() -> None:
    classes = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    images = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    assert zero_shot_classify(images, classes).tolist() == [0, 1, 0]
    ranked = zero_shot_classify(images, classes, top=2)
    assert ranked.tolist() == [[0, 1], [1, 2], [0, 1]]
    assert top_accuracy(ranked, [0, 2, 2], (1, 2)) == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3)}
    assert top_accuracy(zero_shot_classify(images, classes), [0, 1, 1]) == {1: pytest.approx(2 / 3)}
    assert math.isnan(top_accuracy(np.empty((0, 2)), [])[1])


def test_bad_arguments() -> None:
    x = np.eye(3)
    with pytest.raises(DataError, match="3 training embeddings have 2 labels"):
        knn_classify(x, [0, 1], x)
    with pytest.raises(DataError, match="no training items"):
        knn_classify(x[:0], [], x)
    with pytest.raises(ConfigError, match="temperature"):
        knn_classify(x, [0, 1, 2], x, temperature=0)
    with pytest.raises(DataError, match="3 test embeddings"):
        knn_accuracy(x, [0, 1, 2], x, [0])
    with pytest.raises(ConfigError, match="tops is"):
        knn_accuracy(x, [0, 1, 2], x, [0, 1, 2], tops=(0, 1))
    with pytest.raises(DataError, match="2 rows of predictions have 3 labels"):
        top_accuracy(np.array([0, 1]), [0, 1, 2])
    with pytest.raises(DataError, match="from 0 to 3"):
        cross_modal_recall(x, x, [0, 1, 3])
    with pytest.raises(DataError, match="3 text embeddings"):
        cross_modal_recall(x, x, [0, 1])
    with pytest.raises(ConfigError, match="ks"):
        cross_modal_recall(x, x, [0, 1, 2], ks=(0,))
    with pytest.raises(ConfigError, match="direction"):
        cross_modal_recall(x, x, [0, 1, 2], direction="t2i")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([1, 100]))
def test_cross_modal_recall_equals_a_loop(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    texts = rng.integers(-levels, levels + 1, (20, 3)).astype(np.float32)
    images = rng.integers(-levels, levels + 1, (8, 3)).astype(np.float32)
    owner = rng.integers(0, 8, 20)
    ks = (1, 3, 10, 50)
    text_ranks, image_ranks = [], []
    for text, image in zip(texts, owner, strict=True):
        scores = images @ text
        text_ranks.append(sorted(range(8), key=lambda i, s=scores: (-s[i], i)).index(image))  # type: ignore[misc]
    for image in sorted(set(owner.tolist())):
        scores = texts @ images[image]
        order = sorted(range(20), key=lambda i, s=scores: (-s[i], i))  # type: ignore[misc]
        image_ranks.append(min(order.index(i) for i in range(20) if owner[i] == image))
    found = cross_modal_recall(texts, torch.from_numpy(images), torch.from_numpy(owner), ks)
    assert found == pytest.approx({k: np.mean([rank < k for rank in text_ranks]) for k in ks})
    found = cross_modal_recall(texts, images, owner.tolist(), ks, "image_to_text")
    assert found == pytest.approx({k: np.mean([rank < k for rank in image_ranks]) for k in ks})
