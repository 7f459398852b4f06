"""Queries of an image and a text: how well each rule that joins the two finds what both say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import DataError
from mcip.data.corpora import STYLES, SUBJECTS
from mcip.evaluation.benchmarks.base import ComposedRetrieval
from mcip.evaluation.encoders import Encoder
from mcip.evaluation.tasks import Task
from mcip.metrics.composed import contrastive_projection, harris, normalized, trapezoidal_precision

if TYPE_CHECKING:
    from mcip.evaluation.image_retrieval import PerQuery

# Gallery images that centers and least scores are taken of.
_SAMPLED: Final = 1000


def composed(encoder: Encoder, task: Task, data: ComposedRetrieval) -> PerQuery:
    """Mean average precision of each rule: the mean over objects of the mean over the queries of an object.

    Returns:
        By metric one value per object: `map_text` and `map_image` by one part alone; `map_sum` and `map_product` by the
        cosines of both, negative ones taken as 0 in the product; `map_basic` by BASIC without query expansion, with
        centers of the gallery and of the package's texts of things. `map_queries` is that of `map_basic` by query.
    """
    queries, gallery = (encoder.images(table, task.transform) for table in (data.queries, data.gallery))
    query_place, place = ({row: at for at, row in enumerate(encoded.rows.tolist())} for encoded in (queries, gallery))
    images, vectors = queries.queries(), gallery.array()
    texts, subjects, styles = composed_texts(encoder, data)
    drawn = np.random.default_rng(0).permutation(len(vectors))[:_SAMPLED]
    image_mean, text_mean = vectors[drawn].mean(0), subjects.mean(0)
    sample, projection = vectors[drawn] - image_mean, contrastive_projection(subjects, styles)
    lows = float((sample @ projection @ sample.T).min()), float(((subjects - text_mean) @ sample.T).min())
    values: dict[str, dict[str, list[float]]] = {}
    for label in dict.fromkeys(data.objects):
        entries = [(place[row], text) for row, text in data.entries[label] if row in place]
        if not entries:
            continue
        some, of_text = vectors[[row for row, _ in entries]], np.array([text for _, text in entries])
        for number in [at for at, other in enumerate(data.objects) if other == label]:
            if data.query_rows[number] not in query_place:
                continue
            image, text = images[query_place[data.query_rows[number]]], texts[number]
            by_image, by_text = some @ image, some @ text
            u = normalized((some - image_mean) @ (projection @ (image - image_mean)), lows[0])
            v = normalized((some - image_mean) @ (text - text_mean), lows[1])
            rules: dict[str, NDArray[Any]] = {
                "text": by_text, "image": by_image, "sum": by_image + by_text,
                "product": np.maximum(by_image, 0) * np.maximum(by_text, 0), "basic": harris(u, v),
            }  # fmt: skip
            for rule, scores in rules.items():
                ranked = of_text[np.argsort(-scores, kind="stable")] == data.texts[number]
                precision = trapezoidal_precision(np.flatnonzero(ranked))
                values.setdefault(f"map_{rule}", {}).setdefault(label, []).append(precision)
    if not values:
        raise DataError(f"Task {task.name!r}: no query has an image and a gallery that could be read.")
    metrics = {
        name: np.array([_mean(precisions) for precisions in by_object.values()]) for name, by_object in values.items()
    }
    return metrics | {"map_queries": np.concatenate([np.array(one) for one in values["map_basic"].values()])}


def composed_texts(
    encoder: Encoder, data: ComposedRetrieval
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The vectors of the queries' texts (Q, D), of texts of things (n, D) and of how they are shown (m, D)."""
    vectors = encoder.captions([*data.texts, *SUBJECTS, *STYLES], data.fingerprint)
    texts, subjects, styles = np.split(vectors, [len(data.texts), len(data.texts) + len(SUBJECTS)])
    return texts, subjects, styles


def _mean(values: list[float]) -> float:
    """The mean of what is not NaN, NaN where nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
