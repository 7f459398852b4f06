"""The model of an index, loaded when it is first needed and checked to be the one that the index was made with."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mcip import models
from mcip.core.choices import TransformName
from mcip.core.device import pick_device
from mcip.core.errors import ModelError
from mcip.data.transforms import ImageTransform
from mcip.embeddings.encode import encode_pixels
from mcip.retrieval.identity import Identity

# A model, or what `mcip.load` takes.
ModelLike: TypeAlias = str | os.PathLike[str] | models.Model


class Encoder:
    """Embeds images and texts as an index needs them; may be used by several threads."""

    def __init__(self, uri: str, identity: Identity, model: ModelLike | None, device: str) -> None:
        """Load nothing yet, but check a model that is given.

        Args:
            uri: Of the index, for messages.
            identity: What it was made with.
            model: The model, or what `mcip.load` takes; the one that the index names if not given.
            device: Of the model.

        Raises:
            ModelError: The model is another one.
        """
        self.uri = uri
        self.identity = identity
        self._given = model
        self._device = device
        self._lock = threading.Lock()
        self._model: models.Model | None = None
        if model is not None:
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

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Embed images with the index's model and transform; float32 (n, D) of unit length."""
        return self.prepared([self.prepare(image) for image in images])

    def prepare(self, image: Image.Image) -> Tensor:
        """An RGB image at the size that the model takes, uint8 (3, S, S): what `images` does before the model."""
        return self._transform.prepare(image)

    def prepared(self, pixels: Sequence[Tensor]) -> NDArray[np.float32]:
        """Embed what `prepare` returned in one forward pass; float32 (n, D) of unit length."""
        return encode_pixels(self.model, self._transform.finish(torch.stack(list(pixels)).to(self.model.device)))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with the index's model; float32 (n, D) of unit length."""
        return self.model.encode(list(texts), kind="text", batch_size=256)

    @property
    def _transform(self) -> ImageTransform:
        name: TransformName = "paper" if self.identity.transform == "paper" else "model"
        return self.model.transform(name)

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
        name = self.identity.model if self._given is None else os.fspath(self._given)
        try:
            return models.load(name, device=str(pick_device(self._device)))
        except ModelError as error:
            if self._given is not None:
                raise
            raise ModelError(
                f"{self.uri} was made with the model {name}, which cannot be loaded: {error} "
                "Say where it is now with --model."
            ) from error
