"""The model of an index, loaded when it is first needed and checked to be the one that the index was made with.

Where there is an ONNX model of the same weights, queries are embedded by that, and PyTorch is not imported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcip import models
from mcip.core.choices import Backend, TransformName, check_choice
from mcip.core.errors import ModelError
from mcip.core.progress import console
from mcip.models.onnx_model import OnnxModel, exported_model, is_onnx
from mcip.retrieval.identity import Identity
from mcip.retrieval.location import is_remote, local_path

if TYPE_CHECKING:
    from torch import Tensor

    from mcip.data.transforms import ImageTransform
    from mcip.embeddings.compact import Codec

# A model, or what `mcip.load` takes.
ModelLike: TypeAlias = "str | os.PathLike[str] | models.Model"
# An image at the size that the model takes, uint8 (3, S, S): an array for ONNX Runtime, a tensor for PyTorch.
Prepared: TypeAlias = "NDArray[np.uint8] | Tensor"


class Encoder:
    """Embeds images and texts as an index needs them; may be used by several threads."""

    def __init__(
        self, uri: str, identity: Identity, model: ModelLike | None, device: str, backend: Backend = "auto",
        codec: Codec | None = None,
    ) -> None:  # fmt: skip
        """Load nothing yet, but check a model that is given.

        Args:
            uri: Of the index, for messages.
            identity: What it was made with.
            model: The model, or what `mcip.load` takes; the one that the index names if not given.
            device: Of the model.
            backend: "onnx", "torch", or "auto": by ONNX Runtime if the model given is an ONNX model, or there is one of
                the same weights in the folder `onnx` of the model's folder, or beside the index as `<uri>.onnx`, unless
                a loaded model or another device than the CPU is given.
            codec: How the index stores vectors; queries are shortened as they are.

        Raises:
            ConfigError: There is no such backend.
            ModelError: The model is another one.
        """
        check_choice("backend", backend, Backend)
        self.uri = uri
        self.identity = identity
        self._given = model
        self._device = device
        self._backend: Backend = backend
        self._codec = codec
        self._lock = threading.Lock()
        self._model: models.Model | None = None
        if model is not None and self.onnx is None:
            _ = self.model

    @property
    def model(self) -> models.Model:
        """The model. Its weights are compared with the index's once, when it is loaded.

        Raises:
            ModelError: It cannot be loaded, or it is not the one that the index was made with.
        """
        with self._lock:
            if self._model is None:
                self._model = self._checked(self._load())
            return self._model

    @cached_property
    def onnx(self) -> OnnxModel | None:
        """The ONNX model by which queries are embedded; None if PyTorch does it.

        Raises:
            ModelError: There is none of the index's weights, although backend "onnx" or such a model is given.
        """
        if self._backend == "torch":
            return None
        places = onnx_places(self.uri, self._given_path, self.identity.model)
        found = next((OnnxModel(place) for place in places if is_onnx(place)), None)
        required = self._backend == "onnx" or (found is not None and found.folder == self._given_path)
        loaded = self._given is not None and self._given_path is None
        if not required and (loaded or self._device not in ("auto", "cpu")):
            return None
        if found is None:
            if required:
                raise ModelError(
                    f"There is no ONNX model for {self.uri}: `mcip export {self._given_path or self.identity.model} "
                    f"{places[-1]} --format onnx` makes one."
                )
            return None
        if found.fingerprint != self.identity.fingerprint:
            problem = f"{found.folder} is an ONNX model of other weights than those that {self.uri} was made with"
        elif find_spec("onnxruntime") is None:
            problem = f"{found.folder} is not used: the package onnxruntime is not installed (pip install 'mcip[onnx]')"
        else:
            return found
        if required:
            raise ModelError(f"{problem}.")
        console.print(f"{problem}: PyTorch embeds the query.", markup=False, soft_wrap=True)
        return None

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Embed images with the index's model and transform; float32 (n, D) of unit length."""
        return self.prepared([self.prepare(image) for image in images])

    def prepare(self, image: Image.Image) -> Prepared:
        """An RGB image at the size that the model takes, uint8 (3, S, S): what `images` does before the model."""
        if self.onnx is not None:
            return self.onnx.prepare(image, self._transform_name)
        return self._transform.prepare(image)

    def prepared(self, pixels: Sequence[Prepared]) -> NDArray[np.float32]:
        """Embed what `prepare` returned in one forward pass; float32 (n, D) of unit length."""
        if self.onnx is not None:
            return self._short(self.onnx.embed_prepared(cast("Sequence[NDArray[np.uint8]]", pixels)))
        import torch

        from mcip.embeddings.encode import encode_pixels

        pixels = cast("Sequence[Tensor]", pixels)
        finished = self._transform.finish(torch.stack(list(pixels)).to(self.model.device))
        return self._short(encode_pixels(self.model, finished))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with the index's model; float32 (n, D) of unit length."""
        if self.onnx is not None:
            return self._short(self.onnx.encode_texts(texts))
        return self._short(self.model.encode(list(texts), kind="text", batch_size=256))

    def _short(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors if self._codec is None else self._codec.project(vectors)

    @property
    def _transform_name(self) -> TransformName:
        return "paper" if self.identity.transform == "paper" else "model"

    @property
    def _transform(self) -> ImageTransform:
        return self.model.transform(self._transform_name)

    @property
    def _given_path(self) -> Path | None:
        return Path(self._given) if isinstance(self._given, str | os.PathLike) else None

    def _checked(self, model: models.Model) -> models.Model:
        if model.fingerprint == self.identity.fingerprint:
            return model
        raise ModelError(
            f"{self.uri} was made with the model {self.identity.model}, whose weights are not those of {model.source}: "
            "vectors of different models cannot be compared. Search with that model, or make an index with this one."
        )

    def _load(self) -> models.Model:
        if isinstance(self._given, models.Model):
            return self._given
        from mcip.core.device import pick_device

        name = self.identity.model if self._given is None else os.fspath(self._given)
        try:
            return models.load(exported_model(name), device=str(pick_device(self._device)))
        except ModelError as error:
            if self._given is not None:
                raise
            raise ModelError(
                f"{self.uri} was made with the model {name}, which cannot be loaded: {error} "
                "Say where it is now with --model."
            ) from error


def onnx_places(uri: str, given: Path | None, model: str) -> list[Path]:
    """Where an ONNX model of an index's model may lie, the most likely first and where to put one last.

    Args:
        uri: Of the index.
        given: The model that is given, if one is: its folder, or the ONNX model itself.
        model: The name of the index's model.
    """
    named = given if given is not None else Path(model)
    beside = [] if is_remote(uri) else [beside_index(uri)]
    return [named, named / "onnx", *beside]


def beside_index(uri: str) -> Path:
    """Where the ONNX model of an index on this machine lies, if it is not in the model's folder."""
    path = local_path(uri)
    return path.with_name(f"{path.name}.onnx")
