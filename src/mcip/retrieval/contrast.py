"""What BASIC takes from texts: which directions tell things apart, rather than the ways in which they are shown.

Psomas et al., "Instance-Level Composed Image Retrieval", NeurIPS 2025, arXiv 2510.25387.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mcip.core.files import atomic_write
from mcip.data.corpora import STYLES, SUBJECTS
from mcip.metrics.composed import contrastive_projection
from mcip.retrieval.fusion import Background

_FILE: Final = "corpora.npz"


@dataclass(frozen=True)
class Contrast:
    """Centers, a projection, and the least scores.

    Attributes:
        text_mean: Shape (D,): the mean of the texts of subjects.
        projection: Shape (D, D): onto the directions in which the texts of subjects vary, and those of styles do not.
        image_low: The least score of two images of the index.
        text_low: The least score of a text of a subject and an image.
    """

    text_mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    image_low: float
    text_low: float

    @classmethod
    def of(cls, subjects: NDArray[np.float32], styles: NDArray[np.float32], background: Background) -> Contrast:
        """Learn the projection from embeddings of texts (n, D) and (m, D), and measure an index."""
        mean, sample = subjects.mean(0), background.sample
        projection = contrastive_projection(subjects, styles)
        image_low, text_low = (sample @ projection @ sample.T).min(), ((subjects - mean) @ sample.T).min()
        return cls(mean, projection, float(image_low), float(text_low))


def load_contrast(
    folder: Path, fingerprint: str, embed_texts: Callable[[Sequence[str]], NDArray[np.float32]], background: Background
) -> Contrast:
    """The contrast for an index; the embeddings of the texts are kept in a file of its folder.

    Args:
        folder: Of the index's derived files.
        fingerprint: Of the model.
        embed_texts: Embeds texts by it.
        background: Of the index.
    """
    path, key = folder / _FILE, hashlib.sha256(repr((fingerprint, SUBJECTS, STYLES)).encode()).hexdigest()
    # One that is damaged, or of other texts or another model, is written again.
    with contextlib.suppress(OSError, ValueError, KeyError), np.load(path, allow_pickle=False) as stored:
        if str(stored["key"]) == key:
            return Contrast.of(stored["subjects"], stored["styles"], background)
    subjects, styles = embed_texts(SUBJECTS), embed_texts(STYLES)
    # In a place that cannot be written to they are embedded by each process.
    with contextlib.suppress(OSError), atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, key=np.array(key), subjects=subjects, styles=styles)
    return Contrast.of(subjects, styles, background)
