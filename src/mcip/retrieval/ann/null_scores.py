"""The best scores of queries that have nothing to do with an index, for each kind of query."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.retrieval.ann.engine import Engine
from mcip.retrieval.fusion import Part
from mcip.retrieval.ranking import Query, rank, score_vectors
from mcip.retrieval.score_calibration import NullDistribution, ScoreCalibration, unrelated_best, without_matches

# Queries of each kind.
_QUERIES: Final = 300
# The least cosine of an image to itself, as it is stored.
_SAME: Final = 0.999


def calibrate_scores(engine: Engine, texts: NDArray[np.float32]) -> ScoreCalibration:
    """Search by unrelated queries of each kind, and take the distribution of what they find.

    Unrelated texts are general ones. Unrelated images are images of the index itself, each against all others: what
    they have in common beyond what any two images of the index have is taken out by `unrelated_best`. Mixed queries
    are such an image with such a text.

    Args:
        engine: The index.
        texts: Embeddings of general texts, (T, D).
    """
    sources, images = _images(engine)
    words = [Part(vector, "text") for vector in texts[:_QUERIES]]
    nulls = {
        "image": _null(engine, images, sources),
        "text": _null(engine, words, None),
        "mixed": calibrate_mixed(engine, texts, engine.background.standardized),
    }
    return ScoreCalibration({kind: null for kind, null in nulls.items() if null is not None})


def calibrate_mixed(
    engine: Engine, texts: NDArray[np.float32], fuse: Callable[[Sequence[Part]], Query]
) -> NullDistribution | None:
    """The same for mixed queries, which `fuse` makes of their parts."""
    sources, images = _images(engine)
    pairs = [(image, Part(vector, "text")) for image, vector in zip(images, texts, strict=False)]
    return _null(engine, [fuse(pair) for pair in pairs], sources, [pair[0].vector for pair in pairs])


def _images(engine: Engine) -> tuple[NDArray[np.int64], list[Part]]:
    """Some images of the index, by their slots, as queries; none where there are no others to find."""
    alive = np.arange(len(engine.row_ids)) if engine.alive is None else engine.alive.slots
    sources = np.random.default_rng(1).choice(alive, min(_QUERIES, len(alive)) if len(alive) > 1 else 0, replace=False)
    return sources, [Part(vector, "image") for vector in engine.take(sources)]


def _null(
    engine: Engine,
    queries: Sequence[Query],
    sources: NDArray[np.int64] | None,
    images: Sequence[NDArray[np.float32]] = (),
) -> NullDistribution | None:
    """From the best score of each query, without the image in the slot that it was taken from.

    Scores of mixed queries are standard deviations over a sample of the index, in which that image would count as well:
    those are taken anew over the others.
    """
    if not queries:
        return None
    sample = engine.background.sample + engine.background.image_mean
    best, sampled = [], []
    for number, query in enumerate(queries):
        scores, slots = rank(engine, query, 1 if sources is None else 2)
        others = scores if sources is None else scores[slots != sources[number]]
        of_sample = score_vectors(query, sample)
        center, spread = 0.0, 1.0
        if images:
            rest = of_sample[sample @ images[number] < _SAME]
            center, spread = (float(rest.mean()), max(float(rest.std()), 1e-6)) if len(rest) else (center, spread)
        best.append((others[0] - center) / spread)
        sampled.append((of_sample - center) / spread)
    cosines = isinstance(queries[0], Part)
    best_of_unrelated = unrelated_best(np.array(best), np.stack(sampled), len(engine))
    return NullDistribution.fit(without_matches(best_of_unrelated), _SAME if cosines else math.inf)
