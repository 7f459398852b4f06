"""Several parts of a query - pictures, texts, things to get away from - as one ranking.

Similarities of images to images and of texts to images lie on different scales: CLIP puts images and texts into two
narrow cones with a gap between them (Liang et al., Mind the Gap, NeurIPS 2022), so that the cosine of any two pictures
is several times that of a picture and the text that describes it. Their plain sum is decided by the pictures alone.
Here every part is measured from the centre of its own kind, and in the standard deviations that similarities of
its kind have in this very index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcip.artefacts import atomic_write
from mcip.errors import ArtefactError, ConfigError
from mcip.searching.recall import Kind


@dataclass(frozen=True)
class Part:
    """One part of a query.

    Attributes:
        vector: Shape (D,), float32, of unit length.
        kind: "image" or "text".
        weight: Above 0 for what is looked for, below 0 for what to get away from.
    """

    vector: NDArray[np.float32]
    kind: Kind
    weight: float = 1.0


@dataclass(frozen=True)
class Background:
    """What similarities look like in an index, by chance.

    Attributes:
        image_mean: Shape (D,): the mean of the index's vectors.
        text_mean: Shape (D,): the mean of the embeddings of sample texts.
        image_std: Standard deviation of the centred similarities of two pictures of the index.
        text_std: That of a text and a picture.
    """

    image_mean: NDArray[np.float32]
    text_mean: NDArray[np.float32]
    image_std: float
    text_std: float

    @classmethod
    def of(cls, images: NDArray[np.float32], texts: NDArray[np.float32]) -> Background:
        """Measure it on some vectors of the index (n, D), and sample texts (m, D); of unit length."""
        image_mean, text_mean = images.mean(0), texts.mean(0) if len(texts) else np.zeros_like(images[0])
        centred = images - image_mean
        pairs = (centred @ centred.T)[~np.eye(len(images), dtype=bool)]
        across = (texts - text_mean) @ centred.T
        return cls(image_mean, text_mean, _std(pairs), _std(across))

    def combine(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """The vector whose products with the index's vectors are the combined scores of the parts, but for a constant.

        Each part scores a picture x by the similarity of what sets the two apart from the average of their kinds,
        z = (q - mean(q's kind)) . (x - mean(images)) / std(q's kind), and the scores are added, times their weights. This is
        linear in x: the sum of the parts' centred vectors, divided by their deviations.

        Returns:
            Shape (D,).
        """
        total = np.zeros_like(self.image_mean)
        for part in parts:
            mean, std = (self.image_mean, self.image_std) if part.kind == "image" else (self.text_mean, self.text_std)
            total += part.weight / std * (part.vector - mean)
        return total

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
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
                return cls(
                    stored["image_mean"], stored["text_mean"], float(stored["image_std"]), float(stored["text_std"])
                )
        except (OSError, ValueError, KeyError) as error:
            raise ArtefactError(f"{path} is damaged ({error}): remove it, and it is made again.") from error


def weighted(
    images: Sequence[NDArray[np.float32]],
    texts: Sequence[NDArray[np.float32]],
    negatives: Sequence[tuple[NDArray[np.float32], Kind]],
    weights: Sequence[float] | None,
    negative_weight: float,
) -> list[Part]:
    """The parts of a query.

    Args:
        images: Vectors of the pictures to look for.
        texts: Vectors of the texts to look for.
        negatives: Vectors to get away from.
        weights: One weight for each picture, then one for each text; 1 each if not given.
        negative_weight: The weight of each negative.

    Raises:
        ConfigError: There is nothing to look for, or the weights do not fit.
    """
    count = len(images) + len(texts)
    if count == 0:
        raise ConfigError(
            "There is nothing to look for: give a picture or a text. Negatives alone only say what not to find."
            if negatives
            else "There is nothing to look for: give a picture or a text."
        )
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise ConfigError(
            f"There are {len(given)} weights for {len(images)} pictures and {len(texts)} texts: give one for each, "
            "pictures first."
        )
    if not all(np.isfinite(given)) or min(given) < 0 or max(given) <= 0:
        raise ConfigError(f"The weights {given} must be 0 or more, and one of them above 0.")
    kinds: list[Kind] = [*("image" for _ in images), *("text" for _ in texts)]
    parts = [Part(*part) for part in zip([*images, *texts], kinds, given, strict=True)]
    return parts + [Part(vector, kind, -negative_weight) for vector, kind in negatives]


def _std(values: NDArray[np.float32]) -> float:
    """The standard deviation; 1 where there is none to speak of, as with a single picture."""
    std = float(values.std()) if values.size else 0.0
    return std if std > 1e-6 else 1.0
