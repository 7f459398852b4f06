"""What embeds the images of an index: PyTorch, or ONNX Runtime, for which PyTorch is not imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcip.core.choices import Decode, Precision, TransformName
from mcip.models.onnx_model import OnnxModel
from mcip.retrieval.identity import Identity

if TYPE_CHECKING:
    from mcip.data.pillow_transform import PillowTransform
    from mcip.data.transforms import ImageTransform
    from mcip.models import Model

# A model that an index may be made with.
AnyModel: TypeAlias = "Model | OnnxModel"


@dataclass(frozen=True)
class Embedder:
    """The model of an index, and how the index reads images.

    Attributes:
        transform: Its `read` makes pixels of a file; it can be sent to other processes.
        dim: Dimension D of the vectors.
        embed: From what `read` returned, uint8 (B, 3, P, P), to float32 (B, D) of unit length.
    """

    transform: ImageTransform | PillowTransform
    dim: int
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def embedder_of(identity: Identity, model: AnyModel, precision: Precision = "auto") -> Embedder:
    """How a model embeds the images of an index; `precision` is that of PyTorch's forward pass."""
    name: TransformName = "paper" if identity.transform == "paper" else "model"
    decode: Decode = "fast" if identity.decode == "fast" else "exact"
    if isinstance(model, OnnxModel):
        return Embedder(model.transform(name, decode=decode), model.embed_dim, model.embed_prepared)
    transform = model.transform(name, decode=decode)
    return Embedder(transform, model.embed_dim, partial(_by_pytorch, model, transform, precision))


def backend_of(model: AnyModel) -> str:
    """What an index records: "torch", "onnx", or "onnx-int8" for a quantized model."""
    return model.backend if isinstance(model, OnnxModel) else "torch"


def _by_pytorch(
    model: Model, transform: ImageTransform, precision: Precision, pixels: NDArray[np.uint8]
) -> NDArray[np.float32]:
    import torch

    from mcip.embeddings.encode import encode_pixels

    return encode_pixels(model, transform.finish(torch.from_numpy(pixels).to(model.device)), precision)
