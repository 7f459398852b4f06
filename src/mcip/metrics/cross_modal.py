"""Recall of text-to-image and image-to-text retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mcip.errors import ConfigError, DataError
from mcip.metrics.labels import Labels, check_rows, label_array
from mcip.topk import Array, topk


def cross_modal_recall(
    texts: Array,
    images: Array,
    image_of_text: Labels,
    ks: Sequence[int] = (1, 5, 10),
    direction: Literal["text_to_image", "image_to_text"] = "text_to_image",
) -> dict[int, float]:
    """Recall at k between captions and images, each with its own.

    Text to image: the share of captions whose image is among the k nearest. Every caption is a query, without averaging
    over an image's captions. Image to text: the share of images with at least one of their own captions among the k
    nearest; images without a caption are left out.

    Args:
        texts: Embeddings (T, D).
        images: Embeddings (N, D).
        image_of_text: T integers: the row in `images` that each text describes.
        ks: The values of k.
        direction: Which side asks.

    Returns:
        k -> share, from 0 to 1; NaN where there are no queries.

    Raises:
        ConfigError, DataError: The arguments do not fit each other.

    Source: Karpathy and Fei-Fei, CVPR 2015, section 4.1.
    """
    owner = label_array(image_of_text).astype(np.int64)
    check_rows("text", texts, owner)
    if len(owner) and (owner.min() < 0 or owner.max() >= len(images)):
        raise DataError(f"image_of_text runs from {owner.min()} to {owner.max()}, but there are {len(images)} images.")
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks is {tuple(ks)}: give one or more, each at least 1.")
    if direction == "text_to_image":
        hits = topk(texts, images, max(ks))[1].cpu().numpy() == owner[:, None]
    elif direction == "image_to_text":
        captioned = np.unique(owner)
        hits = owner[topk(images[captioned], texts, max(ks))[1].cpu().numpy()] == captioned[:, None]
    else:
        raise ConfigError(f'direction is "{direction}": it is "text_to_image" or "image_to_text".')
    return {k: float(hits[:, :k].any(1).mean()) if len(hits) else float("nan") for k in ks}
