"""The parts of a query: images in several forms, and texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcip.data import decode, to_rgb
from mcip.data.images import IMAGE_SUFFIXES
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.encoder import Encoder
from mcip.retrieval.fusion import Part, weighted
from mcip.retrieval.reading import read_image

# An image: a file or URI, "id:" and an id of the index, or a PIL image.
ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image"
ID: Final = "id:"
# The weight of what results shall not be like.
NEGATIVE_WEIGHT: Final = 0.5


def is_image(part: ImageLike) -> bool:
    """Whether a part of a query is an image: a PIL image, an id of the index, a file or a URI, and not a text."""
    if not isinstance(part, str):
        return True
    if part.startswith(ID) or Path(part).suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        return "/" in part and Path(part).is_file()
    except (OSError, ValueError):
        # Longer than a file's name may be, or with a character that none has.
        return False


def load_image(image: ImageLike) -> Image.Image:
    """An image as RGB, with the same pixels whether it is given by its file, its URI or as a PIL image.

    Raises:
        UnreadableImage: It cannot be read.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    return decode(read_image(os.fspath(image)))


def as_list(value: Any) -> list[Any]:
    """One part of a query, several or none, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | os.PathLike | Image.Image) else list(value)


def embed_parts(
    encoder: Encoder,
    vector_of: Callable[[str], NDArray[np.float32]],
    image: ImageLike | Sequence[ImageLike] | None = None,
    text: str | Sequence[str] | None = None,
    negative: ImageLike | Sequence[ImageLike] | None = None,
    weights: Sequence[float] | None = None,
) -> list[Part]:
    """Embed the parts of a query; see `mcip.retrieval.index.Index.search`.

    Args:
        encoder: The index's model; it is not loaded where all parts are ids of the index.
        vector_of: Returns the vector of an id of the index.
        image: Query images.
        text: Query texts.
        negative: What results shall not be like.
        weights: One for each image, then one for each text.
    """
    images, texts, negatives = as_list(image), [str(text) for text in as_list(text)], as_list(negative)
    negative_images = [part for part in negatives if is_image(part)]
    negative_texts = [str(part) for part in negatives if not is_image(part)]
    image_vectors = _image_vectors(encoder, vector_of, [*images, *negative_images])
    text_vectors = list(encoder.texts([*texts, *negative_texts])) if texts or negative_texts else []
    negative_vectors: list[tuple[NDArray[np.float32], Kind]] = [
        *((vector, "image") for vector in image_vectors[len(images) :]),
        *((vector, "text") for vector in text_vectors[len(texts) :]),
    ]
    return weighted(
        image_vectors[: len(images)], text_vectors[: len(texts)], negative_vectors, weights, NEGATIVE_WEIGHT
    )


def _image_vectors(
    encoder: Encoder, vector_of: Callable[[str], NDArray[np.float32]], images: Sequence[ImageLike]
) -> list[NDArray[np.float32]]:
    """The vectors of images: stored ones for ids, the model's for others, those in one batch."""
    ids = {at: image[len(ID) :] for at, image in enumerate(images) if isinstance(image, str) and image.startswith(ID)}
    vectors = {at: vector_of(id) for at, id in ids.items()}
    others = [at for at in range(len(images)) if at not in ids]
    if others:
        embedded = encoder.images([load_image(images[at]) for at in others])
        vectors |= dict(zip(others, embedded, strict=True))
    return [vectors[at] for at in range(len(images))]
