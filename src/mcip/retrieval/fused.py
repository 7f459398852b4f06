"""Fusions that want both parts: products of similarities, which are small where either part is.

Psomas et al., "Instance-Level Composed Image Retrieval", NeurIPS 2025, arXiv 2510.25387. The sum of
`mcip.retrieval.fusion`, in contrast, lets much of one part make up for little of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ConfigError
from mcip.metrics.composed import HARRIS
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.ann.exact import products
from mcip.retrieval.contrast import Contrast
from mcip.retrieval.fusion import Background, Part

_LEAST_STD: Final = 1e-6
_BLOCK: Final = 16_384


@dataclass(frozen=True)
class FusedQuery:
    """A query whose score is a function of several products with an image's vector.

    Attributes:
        directions: Shape (P, D).
        offsets: Shape (P,), which are added to the products.
        kinds: What each direction is searched as.
        join: From products and offsets, (n, P), to scores (n,).
        center: The mean of these over a sample of the index.
        spread: Their standard deviation.
    """

    directions: NDArray[np.float32]
    offsets: NDArray[np.float32]
    kinds: Sequence[Kind]
    join: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    center: float = 0.0
    spread: float = 1.0

    def scores(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """The scores (n,) of vectors (n, D), in standard deviations above the average image of the index.

        Each is the same whichever vectors are beside it.
        """
        blocks = [vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK)]
        joined = [self.join(self._similarities(block)) for block in blocks] or [np.empty(0, np.float32)]
        return np.asarray((np.concatenate(joined) - self.center) / self.spread, np.float32)

    def standardized(self, background: Background) -> FusedQuery:
        """The same query with its center and spread over an index."""
        scores = self.scores(background.sample + background.image_mean)
        spread = max(float(scores.std()), _LEAST_STD)
        return FusedQuery(self.directions, self.offsets, self.kinds, self.join, float(scores.mean()), spread)

    def _similarities(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        return np.stack([products(vectors, direction) for direction in self.directions], 1) + self.offsets


def product(parts: Sequence[Part], background: Background) -> FusedQuery:
    """The product of the parts' cosines, those below 0 taken as 0, each to the power of the part's weight.

    Of what results shall not be like, 1 - cosine takes the place of the cosine.
    """
    weights = np.array([part.weight for part in parts], np.float32)

    def join(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        above = np.maximum(cosines, 0)
        factors = np.where(weights > 0, above, np.maximum(1 - above, 0)) ** np.abs(weights)
        joined: NDArray[np.float32] = factors.prod(1)
        return joined

    directions = np.stack([part.vector for part in parts])
    query = FusedQuery(directions, np.zeros(len(parts), np.float32), [part.kind for part in parts], join)
    return query.standardized(background)


def basic(parts: Sequence[Part], background: Background, contrast: Contrast) -> FusedQuery:
    """BASIC: u v - 0.1 (u + v)^2, where u is the normalized score of the images and v that of the texts.

    An image q scores x by (q - m) . P (x - m), m being the mean of the index and P the projection of `Contrast`; a text
    by (q - mean of subjects) . (x - m). The weighted mean of the parts of a kind, less the least such score and divided
    by its size, is normalized; it is 0 where it is negative. A query of one kind has that kind's score.

    The weights of the kinds, whose mean is 1 here, are powers of u and v in the product and factors in the sum; with
    equal weights that is the published rule. Query expansion and texts put into the context of subjects, which
    take more searches and 200 more texts a query, are left out.
    """
    directions, offsets, kinds, lows, weights = [], [], list[Kind](), [], []
    rules: tuple[tuple[Kind, NDArray[np.float32], float], ...] = (
        ("image", background.image_mean, contrast.image_low), ("text", contrast.text_mean, contrast.text_low),
    )  # fmt: skip
    for kind, mean, low in rules:
        some = [part for part in parts if part.kind == kind]
        positive = sum(part.weight for part in some if part.weight > 0)
        if not some:
            continue
        if not positive:
            raise ConfigError(
                f"The fusion basic takes what results shall not be like as {kind}s only beside {kind}s to look for: "
                "use the fusion sum or product."
            )
        direction = sum(part.weight / positive * (part.vector - mean) for part in some)
        direction = direction @ contrast.projection if kind == "image" else direction
        directions.append(np.asarray(direction, np.float32))
        offsets.append(-float(direction @ background.image_mean))
        kinds.append(kind)
        lows.append(low)
        weights.append(positive)
    powers = np.array(weights, np.float32) / max(float(np.mean(weights)), 1e-12)
    least = np.array(lows, np.float32)

    def join(similarities: NDArray[np.float32]) -> NDArray[np.float32]:
        normalized = np.maximum((similarities - least) / np.maximum(np.abs(least), _LEAST_STD), 0)
        if normalized.shape[1] == 1:
            return normalized[:, 0]
        both = (normalized**powers).prod(1)
        joined: NDArray[np.float32] = both - np.float32(HARRIS) * (normalized * powers).sum(1) ** 2
        return joined

    query = FusedQuery(np.stack(directions), np.array(offsets, np.float32), kinds, join)
    return query.standardized(background)
