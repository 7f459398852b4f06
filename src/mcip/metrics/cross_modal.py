"""Recall of text-to-image and image-to-text retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.blocks import Array
from mcip.core.errors import ConfigError, DataError
from mcip.core.topk import topk
from mcip.metrics.labels import Labels, check_rows, label_array
from mcip.metrics.means import check_ks, means

Direction: TypeAlias = Literal["text_to_image", "image_to_text"]


def cross_modal_recall(
    texts: Array,
    images: Array,
    image_of_text: Labels,
    ks: Sequence[int] = (1, 5, 10),
    direction: Direction = "text_to_image",
) -> dict[int, float]:
    """Recall at k between captions and the images that they describe.

    The arguments are those of `cross_modal_hits`.

    Returns:
        k -> share, from 0 to 1; NaN where there are no queries.
    """
    return means(cross_modal_hits(texts, images, image_of_text, ks, direction), ks)


def cross_modal_hits(
    texts: Array,
    images: Array,
    image_of_text: Labels,
    ks: Sequence[int] = (1, 5, 10),
    direction: Direction = "text_to_image",
) -> NDArray[np.float64]:
    """Whether each query finds what belongs to it among its k nearest: what `cross_modal_recall` is the mean of.

    Text to image: whether a caption's image is among the k nearest. Every caption is a query, without averaging over an
    image's captions. Image to text: whether at least one of an image's captions is among the k nearest; images
    without a caption are no queries.

    Args:
        texts: Embeddings (T, D).
        images: Embeddings (N, D).
        image_of_text: T integers: the row in `images` that each text describes.
        ks: The values of k.
        direction: Which side the queries are.

    Returns:
        Shape (queries, len(ks)), float64, 0 or 1: a row for each text, or for each image with a caption, in their
        order.

    Raises:
        ConfigError, DataError: The arguments do not fit each other.

    Source: Karpathy and Fei-Fei, CVPR 2015, section 4.1.
    """
    owner = label_array(image_of_text).astype(np.int64)
    check_rows("text", texts, owner)
    if len(owner) and (owner.min() < 0 or owner.max() >= len(images)):
        raise DataError(f"image_of_text runs from {owner.min()} to {owner.max()}, but there are {len(images)} images.")
    check_ks(ks)
    if direction == "text_to_image":
        found = topk(texts, images, max(ks))[1].cpu().numpy() == owner[:, None]
    elif direction == "image_to_text":
        captioned = np.unique(owner)
        found = owner[topk(images[captioned], texts, max(ks))[1].cpu().numpy()] == captioned[:, None]
    else:
        raise ConfigError(f'direction is "{direction}": it is "text_to_image" or "image_to_text".')
    return np.stack([found[:, :k].any(1) for k in ks], 1).astype(np.float64)
