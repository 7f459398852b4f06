"""Several parts of a query - images, texts, negatives - as one ranking.

Similarities of images to images and of texts to images lie on different scales. CLIP puts the two kinds into two
cones with a gap between them (Liang et al., Mind the Gap, NeurIPS 2022), and how far the similarities of one query
spread over an index differs from query to query: those of an image with many near neighbours spread widely, those of a
general text hardly at all. In their plain sum, whichever part spreads more decides. Here every part is measured from
the center of its kind, in standard deviations over a sample of the index; and what nearly all images of the index
differ in decides less about how alike two images are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.errors import ArtefactError, ConfigError
from mcip.core.files import atomic_write
from mcip.retrieval.ann.calibrate import Kind

_LEAST_STD: Final = 1e-6
# Chosen, like the form of the weights, on validation images other than those of docs/searching.md.
_SHRINKAGE: Final = 0.3


@dataclass(frozen=True)
class Part:
    """One part of a query.

    Attributes:
        vector: Shape (D,), float32, of unit length.
        kind: "image" or "text".
        weight: Above 0 for what results shall be like, below 0 for what they shall not be like.
    """

    vector: NDArray[np.float32]
    kind: Kind
    weight: float = 1.0


@dataclass(frozen=True)
class Background:
    """How similarities are distributed over an index.

    Attributes:
        image_mean: Shape (D,): the mean of the index's vectors.
        text_mean: Shape (D,): the mean of the embeddings of sample texts.
        sample: Shape (n, D): some vectors of the index, less their mean.
        whitening: Shape (D, D): (C + c I)^(-1/2), where C is the sample's covariance and c 0.3 of its mean variance.
    """

    image_mean: NDArray[np.float32]
    text_mean: NDArray[np.float32]
    sample: NDArray[np.float32]
    whitening: NDArray[np.float32]

    @classmethod
    def of(cls, images: NDArray[np.float32], texts: NDArray[np.float32]) -> Background:
        """Take it from some vectors of the index (n, D), and sample texts (m, D); of unit length."""
        mean = images.mean(0)
        sample = images - mean
        variances, axes = np.linalg.eigh(sample.T @ sample / len(sample))
        damped = np.maximum(variances + _SHRINKAGE * variances.mean(), _LEAST_STD**2) ** -0.5
        return cls(mean, texts.mean(0) if len(texts) else np.zeros_like(mean), sample, (axes * damped) @ axes.T)

    def combine(self, parts: Sequence[Part]) -> tuple[NDArray[np.float32], float]:
        """Turn the parts of a query into one vector.

        A text with the vector q scores an image x by s = (q - mean(texts)) . (x - mean(images)): how alike the two
        are in what sets them apart from the average of their kinds. An image q scores x by
        s = (q - mean(images)) . whitening (x - mean(images)): directions in which the index varies much count for less,
        so that what is particular about an image counts most. Divided by the standard deviation of s over the
        sample, the scores of all parts are on one scale; times the weights, they are added. This is linear in x, so
        that one vector finds the best images.

        Where texts say what the query's images show anyhow ("a navy shirt" beside a red shirt), both stand for the
        shirt, and what the texts would change counts for too little. So the images' weights are multiplied by
        1 - r^2, the share of the variance of their scores that those of the texts do not explain: r is the correlation
        of the two over the sample, where it is positive.

        Returns:
            The vector v (D,), and a constant c: the combined score of an image x is v . x + c, in weighted standard
            deviations above the average image.
        """
        means = {"image": self.image_mean, "text": self.text_mean}
        centered = np.reshape([part.vector - means[part.kind] for part in parts], (-1, len(self.image_mean)))
        is_image = [part.kind == "image" for part in parts]
        centered[is_image] = centered[is_image] @ self.whitening
        scores = self.sample @ centered.T
        # A part from which all images are equally far says nothing.
        weights = np.array([part.weight for part in parts], np.float32) / np.maximum(scores.std(0), _LEAST_STD)
        images, texts = (
            np.array([part.kind == kind and part.weight > 0 for part in parts], bool) for kind in ("image", "text")
        )
        correlation = _correlation(scores[:, images] @ weights[images], scores[:, texts] @ weights[texts])
        weights[images] *= 1 - max(correlation, 0.0) ** 2
        vector = weights @ centered
        return vector, -float(vector @ self.image_mean)

    def standardized(self, parts: Sequence[Part]) -> tuple[NDArray[np.float32], float]:
        """What `combine` gives, in standard deviations over the sample.

        So a score means the same from query to query, whatever the number of parts and their weights: how many
        standard deviations of the query's scores an image lies above the average image of the index.
        """
        vector, _ = self.combine(parts)
        vector = vector / np.maximum((self.sample @ vector).std(), np.float32(_LEAST_STD))
        return vector, -float(vector @ self.image_mean)

    def save(self, path: Path) -> None:
        """Write it to a file, atomically."""
        facts: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **facts)

    @classmethod
    def load(cls, path: Path) -> Background:
        """Read what `save` wrote.

        Raises:
            ArtefactError: The file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{name: stored[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError) as error:
            raise ArtefactError(f"{path} is damaged ({error}): remove it, and it is built again.") from error


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The correlation of two parts' scores; 0 where one of them does not vary."""
    product = float(one.std() * other.std())
    return float(((one - one.mean()) * (other - other.mean())).mean()) / product if product else 0.0


def weighted(
    images: Sequence[NDArray[np.float32]],
    texts: Sequence[NDArray[np.float32]],
    negatives: Sequence[tuple[NDArray[np.float32], Kind]],
    weights: Sequence[float] | None,
    negative_weight: float,
) -> list[Part]:
    """The parts of a query.

    Args:
        images: Vectors of the query images.
        texts: Vectors of the query texts.
        negatives: Vectors of what results shall not be like, with their kinds.
        weights: One weight for each image, then one for each text; 1 each if not given.
        negative_weight: The weight of each negative.

    Raises:
        ConfigError: There is nothing to look for, or the weights do not fit.
    """
    count = len(images) + len(texts)
    if count == 0:
        raise ConfigError(
            "There is nothing to look for: give an image or a text. Negatives alone only say what not to find."
            if negatives
            else "There is nothing to look for: give an image or a text."
        )
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise ConfigError(
            f"There are {len(given)} weights for {len(images)} images and {len(texts)} texts: give one for each, "
            "images first."
        )
    if not all(map(math.isfinite, given)) or min(given) < 0 or max(given) <= 0:
        raise ConfigError(f"The weights {given} must be 0 or more, and one of them above 0.")
    parts = [Part(vector, "image", weight) for vector, weight in zip(images, given, strict=False)]
    parts += [Part(vector, "text", weight) for vector, weight in zip(texts, given[len(images) :], strict=True)]
    return parts + [Part(vector, kind, -negative_weight) for vector, kind in negatives]
