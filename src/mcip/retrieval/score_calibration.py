"""How good a score is, told by how often an unrelated query finds an image with one as good.

A cosine says little by itself: 0.25 is a good match of a text and a poor one of an image, and what is usual differs
from model to model and from index to index. So each index keeps, for each kind of query, the distribution of the best
score of queries that have nothing to do with it. `--min-score 1/1000` is the score that one in a thousand of them
reaches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.files import read_json, write_json

# The chance at which the page and the command draw their line.
LINE: Final = 1 / 1000
# Fewer queries say too little about a tail.
LEAST_QUERIES: Final = 20
# A best score so far above the rest of the index that normal scores reach it in one of so many indexes is a match.
_OUTLIER: Final = 1 / 1000
# The median of the absolute deviations times this is the standard deviation of a normal distribution.
_MAD: Final = 1.4826
# One in a hundred scores of Gumbel's distribution lies so many standard deviations, by _MAD, above the median. Where
# more than a twentieth of the queries do, they find what they look for.
_BEYOND: Final = 3.72
_MOST_BEYOND: Final = 1 / 20
# Gumbel's distribution is 0; smaller shapes have tails that bounded scores cannot have. At 0.2 the score of one in a
# thousand is that of a normal distribution.
_SHAPES: Final = (0.0, 0.2)
# An estimated shape is lowered by so many standard errors, sqrt(0.5633 / queries): too large a shape lets more
# unrelated queries pass than is stated.
_CAREFUL: Final = 3.0
_VARIANCE: Final = 0.5633
_CHANCE: Final = re.compile(r"\s*1\s*/\s*(\d{1,9})\s*")


@dataclass(frozen=True)
class NullDistribution:
    """The best score that an unrelated query finds: a generalised extreme value distribution.

    P(best score <= x) = exp(-(1 - shape (x - location) / scale)^(1 / shape)), for the shape 0
    exp(-exp(-(x - location) / scale)).

    Attributes:
        location: Where it lies.
        scale: How wide it is.
        shape: How soon its upper tail ends, from 0 to 0.2.
        queries: Unrelated queries that it was estimated from.
        most: No score asks for more: a cosine of 1 is that of an image to itself, but for rounding.
    """

    location: float
    scale: float
    shape: float
    queries: int
    most: float = math.inf

    @classmethod
    def fit(cls, best: NDArray[np.floating], most: float = math.inf) -> NullDistribution | None:
        """Estimate it from best scores (Q,) by L-moments; None for fewer than 20.

        Source: Hosking, Wallis and Wood, "Estimation of the Generalized Extreme-Value Distribution by the Method of
        Probability-Weighted Moments", Technometrics 1985, equations 10 to 14.
        """
        count = len(best)
        if count < LEAST_QUERIES:
            return None
        ordered, place = np.sort(best.astype(np.float64)), np.arange(count)
        b0 = float(ordered.mean())
        b1 = float((place * ordered).mean()) / (count - 1)
        b2 = float((place * (place - 1) * ordered).mean()) / ((count - 1) * (count - 2))
        second, third = 2 * b1 - b0, 6 * b2 - 6 * b1 + b0
        if second < 1e-9:
            return cls(b0, 0.0, 0.0, count, most)
        c = 2 / (3 + third / second) - math.log(2) / math.log(3)
        shape = 7.8590 * c + 2.9554 * c**2 - _CAREFUL * math.sqrt(_VARIANCE / count)
        shape = min(max(shape, _SHAPES[0]), _SHAPES[1])
        if shape < 1e-6:
            scale = second / math.log(2)
            return cls(b0 - 0.5772156649 * scale, scale, 0.0, count, most)
        gamma = math.gamma(1 + shape)
        scale = second * shape / ((1 - 2**-shape) * gamma)
        return cls(b0 - scale * (1 - gamma) / shape, scale, shape, count, most)

    def score(self, chance: float) -> float:
        """The score that this share of unrelated queries reaches."""
        rare = -math.log1p(-chance)
        spread = -math.log(rare) if self.shape == 0 else (1 - rare**self.shape) / self.shape
        return min(self.location + self.scale * spread, self.most)


def unrelated_best(best: NDArray[np.floating], sampled: NDArray[np.floating], rows: int) -> NDArray[np.floating]:
    """The best scores that queries would find if they had nothing to do with an index.

    Some of the queries will find what they look for. Their best score lies far above those of the other images: it
    counts as the highest that the largest of `rows` normal scores reaches in one of a thousand indexes. Center and
    spread of those are the median and the median absolute deviation, which a few matches do not move.

    Args:
        best: Best score of each query, (Q,).
        sampled: Scores of each query for a sample of the index, (Q, n).
        rows: Images of the index.
    """
    center = np.median(sampled, axis=1)
    spread = _MAD * np.median(np.abs(sampled - center[:, None]), axis=1)
    most = NormalDist().inv_cdf((1 - _OUTLIER) ** (1 / rows))
    # Where half of the scores are equal, as products with nothing are, they do not tell what the largest may be.
    return np.asarray(np.minimum(best, np.where(spread > 0, center + most * spread, np.inf)))


def without_matches(best: NDArray[np.floating]) -> NDArray[np.floating]:
    """The best scores (Q,) less those of queries that an index has much of.

    Such a one is "in the grass" where every eighth image is. They form a second group far above the others, which are
    the rule: unrelated queries alone would reach so far above their median in one case of a hundred. Where no more than
    one in twenty does, nothing is left out.

    Source: Efron, "Large-Scale Simultaneous Hypothesis Testing: The Choice of a Null Hypothesis", JASA 2004: a null
    distribution is estimated from the middle of the scores, since some of them are not null.
    """
    center = np.median(best)
    beyond = best > center + _BEYOND * _MAD * np.median(np.abs(best - center))
    return best[~beyond] if beyond.mean() > _MOST_BEYOND else best


@dataclass(frozen=True)
class ScoreCalibration:
    """The distributions of an index, by kind of query."""

    kinds: Mapping[str, NullDistribution]

    def least(self, min_score: float | str, kind: str) -> float:
        """The least score that a query asks for.

        Args:
            min_score: A score, or "1/N": as rare as among N unrelated queries.
            kind: Of the query.

        Raises:
            ConfigError: It is neither, or the index is too small to tell.
        """
        chance = chance_of(min_score)
        if chance is None:
            return float(min_score)
        null = self.kinds.get(kind)
        if null is None:
            raise ConfigError(
                f"min_score is {min_score}, but this index holds too little to tell how often unrelated {kind} queries "
                f"reach a score: {LEAST_QUERIES} images and texts at least are needed. Give a score instead."
            )
        return null.score(chance)

    def line(self, kind: str) -> float | None:
        """The score that one in a thousand unrelated queries reaches; None where that is not known."""
        null = self.kinds.get(kind)
        return None if null is None else null.score(LINE)

    def save(self, path: Path) -> None:
        """Write it to a file, atomically."""
        write_json(path, {kind: asdict(null) for kind, null in self.kinds.items()})

    @classmethod
    def load(cls, path: Path) -> ScoreCalibration:
        """Read what `save` wrote.

        Raises:
            ArtefactError: The file is damaged.
        """
        try:
            return cls({kind: NullDistribution(**null) for kind, null in read_json(path).items()})
        except (TypeError, AttributeError) as error:
            raise ArtefactError(f"{path} is damaged ({error}): remove it, and it is built again.") from error


def chance_of(min_score: float | str) -> float | None:
    """The chance that "1/N" names; None for a score.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(min_score, str) and (match := _CHANCE.fullmatch(min_score)) and int(match[1]) > 1:
        return 1 / int(match[1])
    try:
        finite = math.isfinite(float(min_score))
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise ConfigError(
            f"min_score is {min_score!r}: write 1/1000 for what one of 1,000 unrelated queries reaches, or a score."
        )
    return None
