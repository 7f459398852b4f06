"""A model: two towers, what is needed to feed them, and its embeddings of images and texts."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mcip.core.choices import Decode, TransformName
from mcip.core.errors import ModelError
from mcip.data.transforms import ImageTransform, image_transform
from mcip.models.encode import EncodeInput, Kind, encode
from mcip.models.fingerprint import Fingerprint, image_tower_digest
from mcip.models.text_tower import TextTower
from mcip.models.tokenizers import Tokenizer, make_tokenizer


@dataclass
class Model:
    """An image tower and a text tower that share one space, with what is needed to feed them.

    Example:
        >>> model = mcip.load("toyshop")
        >>> model.encode(["a red mug", "a blue fish"]).shape
        (2, 256)

    Attributes:
        clip: open_clip's `CLIP` or `CustomTextCLIP`, float32, in evaluation mode.
        model_cfg: Its architecture, as `open_clip_config.json` holds it.
        preprocess_cfg: Its preprocessing, as `open_clip_config.json` holds it.
        source: The name it was loaded by.
        folder: The local folder it was loaded from, if any.
    """

    clip: Any = field(repr=False)
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    source: str
    folder: Path | None = None
    _tokenizer: Tokenizer | None = field(default=None, init=False, repr=False)
    _hashed: Fingerprint | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """All but what is remembered of this process's memory."""
        return {**self.__dict__, "_hashed": None}

    @property
    def embed_dim(self) -> int:
        """Dimension D of the embeddings."""
        return int(self.model_cfg["embed_dim"])

    @property
    def image_size(self) -> int:
        """Side S of the square the image tower takes, in pixels."""
        size = self.preprocess_cfg["size"]
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            raise ModelError(f"{self.source} takes images of {size} pixels; only square ones are supported.")
        return int(sides.pop())

    @contextlib.contextmanager
    def on(self, device: str | torch.device) -> Iterator[None]:
        """Keep the whole model on a device for the length of a block; then it returns to where it was."""
        before = self.device
        self.clip.to(device)
        try:
            yield
        finally:
            self.clip.to(before)

    @property
    def device(self) -> torch.device:
        """Where the image tower is; the text tower may be left elsewhere while only images are needed."""
        return self.image_parameters()[0].device

    @property
    def text_device(self) -> torch.device:
        """Where the text tower is."""
        return self.text_parameters()[0].device

    @property
    def tokenizer(self) -> Tokenizer:
        """open_clip's tokenizer for this model: texts to int64 (T, context length). Made at first use.

        Raises:
            ModelError: It needs the extra `mcip[siglip]`, or files that cannot be had.
        """
        if self._tokenizer is None:
            self._tokenizer = make_tokenizer(self.model_cfg, self.source, self.folder)
        return self._tokenizer

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights as float32 and the activation: the same whatever file format and dtype stored them.

        Hashed at first use, and again only after a weight was replaced or changed in place. Changes through `.data`,
        which PyTorch does not track, are not noticed.
        """
        if self._hashed is None or not self._hashed.fits(self.clip):
            self._hashed = Fingerprint(self.clip, bool(self.model_cfg.get("quick_gelu")))
        return self._hashed.digest

    def embeds_images_as(self) -> str:
        """SHA-256 over all that an image's embedding depends on: the image tower, the activation and the preprocessing.

        Models that differ in the text tower alone have the same. It is hashed at each call.
        """
        tower = image_tower_digest(self.clip, bool(self.model_cfg.get("quick_gelu")))
        return hashlib.sha256(f"{tower} {sorted(self.preprocess_cfg.items())}".encode()).hexdigest()

    def copy(self) -> Model:
        """A model with the same weights in memory of its own."""
        return deepcopy(self)

    def transform(self, name: TransformName = "model", train: bool = False, decode: Decode = "exact") -> ImageTransform:
        """The image transform for this model: its own ("model") or the paper's ("paper"); see `image_transform`."""
        return image_transform(self.preprocess_cfg, name, train, decode)

    @overload
    def encode(
        self, inputs: EncodeInput | Iterable[EncodeInput], *, kind: Kind | None = ..., transform: TransformName = ...,
        batch_size: int = ..., normalize: bool = ..., convert_to_tensor: Literal[False] = ...,
        show_progress_bar: bool = ..., workers: int = ...,
    ) -> NDArray[np.float32]: ...  # fmt: skip

    @overload
    def encode(
        self, inputs: EncodeInput | Iterable[EncodeInput], *, kind: Kind | None = ..., transform: TransformName = ...,
        batch_size: int = ..., normalize: bool = ..., convert_to_tensor: Literal[True],
        show_progress_bar: bool = ..., workers: int = ...,
    ) -> Tensor: ...  # fmt: skip

    def encode(
        self,
        inputs: EncodeInput | Iterable[EncodeInput],
        *,
        kind: Kind | None = None,
        transform: TransformName = "model",
        batch_size: int = 64,
        normalize: bool = True,
        convert_to_tensor: bool = False,
        show_progress_bar: bool = False,
        workers: int = 0,
    ) -> NDArray[np.float32] | Tensor:
        """Embed images and texts.

        Args:
            inputs: One input or a list of them: paths or URIs of image files, the bytes of image files, PIL images,
                texts. A string is taken for an image where it names an existing image file or is the URI of one.
            kind: "image" or "text": take all strings for that.
            transform: The model's own image transform, or "paper".
            batch_size: Inputs per forward pass.
            normalize: Whether the vectors have unit length.
            convert_to_tensor: Return a tensor on the model's device instead of an array.
            show_progress_bar: Show progress on stderr.
            workers: Processes that decode images; 0 decodes in this one.

        Returns:
            float32 (n, D) in the order of the inputs, without gradient; (D,) for one input that is not in a list. A
            surrounding `torch.autocast` applies.

        Raises:
            ModelError: An input is neither an image nor a text, or looks like the path of a file that is not there.
            UnreadableImage: An image cannot be read; the message says which and why.

        Example:
            >>> import mcip
            >>> from PIL import Image
            >>> model = mcip.load("toyshop")
            >>> images = model.encode([Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")])
            >>> texts = model.encode(["a red mug", "a blue mug"], batch_size=256)
            >>> (images @ texts.T).shape
            (2, 2)
        """
        single = isinstance(inputs, str | bytes | Image.Image) or not isinstance(inputs, Iterable)
        listed: list[Any] = [inputs] if single else list(inputs)  # type: ignore[arg-type]
        vectors = encode(self, listed, kind, transform, batch_size, normalize, show_progress_bar, workers)
        vectors = vectors[0] if single else vectors
        if convert_to_tensor:
            return vectors
        array: NDArray[np.float32] = vectors.cpu().numpy()
        return array

    def embed_pixels(self, pixels: Tensor, normalize: bool = True) -> Tensor:
        """Embed finished pixels, as `transform` makes them.

        Args:
            pixels: float (B, 3, S, S), normalised, on any device.
            normalize: Whether the vectors have unit length.

        Returns:
            float32 (B, D), without gradient, where the image tower is.
        """
        with torch.no_grad():
            features = self.clip.encode_image(pixels.to(self.device)).float()
            return F.normalize(features, dim=-1) if normalize else features

    def embed_tokens(self, tokens: Tensor, normalize: bool = True) -> Tensor:
        """Embed tokens, as `tokenizer` makes them.

        Args:
            tokens: int64 (T, context length), on any device.
            normalize: Whether the vectors have unit length.

        Returns:
            float32 (T, D), without gradient, where the text tower is.
        """
        with torch.no_grad():
            features = TextTower(self.clip)(tokens.to(self.text_device)).float()
            return F.normalize(features, dim=-1) if normalize else features

    def image_parameters(self) -> list[nn.Parameter]:
        """The parameters of the image tower with its projector."""
        return list(self.clip.visual.parameters())

    def text_parameters(self) -> list[nn.Parameter]:
        """The parameters of the text tower with its projector: all but the image tower's and the logit scale's."""
        return [
            parameter
            for name, parameter in self.clip.named_parameters()
            if not name.startswith(("visual.", "logit_scale", "logit_bias"))
        ]
