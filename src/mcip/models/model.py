"""Models: loaded by name, from a folder or with weights put on top; saved as a folder that open_clip loads itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from mcip.core.artefacts import Artefact, atomic_write, write_json
from mcip.core.choices import TransformName
from mcip.core.errors import ModelError
from mcip.data.transforms import ImageTransform, image_transform
from mcip.models.registry import (
    CONFIG_FILE,
    LOCAL,
    WEIGHTS_FILE,
    Recipe,
    no_weights,
    resolve,
    split_config,
    warn_of_quick_gelu,
)
from mcip.models.state_dict import SkipInit, load_strict, plain_state_dict, read_state_dict
from mcip.models.text_tower import TextTower
from mcip.models.tokenizers import Tokenizer, make_tokenizer, write_tokenizer


@dataclass
class Model:
    """An image tower and a text tower that share one space, with what is needed to feed them.

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
    _hashed: tuple[object, str] | None = field(default=None, init=False, repr=False)

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

    @property
    def device(self) -> torch.device:
        """Where the image tower is; the text tower may be left elsewhere while only images are needed."""
        return self.image_parameters()[0].device

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

        Kept until a weight is changed in place or replaced.
        """
        state = self.clip.state_dict()
        version = [(key, value.data_ptr(), value._version) for key, value in state.items()]
        if self._hashed is None or self._hashed[0] != version:
            digest = hashlib.sha256(b"quick_gelu" if self.model_cfg.get("quick_gelu") else b"")
            for key, value in sorted(state.items()):
                array = value.detach().to("cpu", torch.float32).contiguous().numpy()
                digest.update(f"{key}{array.shape}".encode())
                digest.update(array.data)
            self._hashed = (version, digest.hexdigest())
        return self._hashed[1]

    def transform(self, name: TransformName = "model", train: bool = False) -> ImageTransform:
        """The image transform for this model: its own ("model") or the paper's ("paper")."""
        return image_transform(self.preprocess_cfg, name, train)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Embed finished pixels.

        Args:
            pixels: float (B, 3, S, S), normalised, on any device.

        Returns:
            float32 (B, D) of unit length, without gradient.
        """
        with torch.no_grad():
            features = self.clip.encode_image(pixels.to(self.device))
            return F.normalize(features.float(), dim=-1)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Embed texts, cleaned as the model's own tokenizer cleans them.

        Returns:
            float32 (T, D) of unit length, without gradient, where the text tower is.
        """
        if isinstance(texts, str):
            raise ModelError("encode_texts takes a list of texts, not one text: put it in a list.")
        device = self.text_parameters()[0].device
        features = torch.empty(len(texts), self.embed_dim, device=device)
        tower = TextTower(self.clip)
        with torch.no_grad():
            for start in range(0, len(texts), batch_size):
                tokens = self.tokenizer(list(texts[start : start + batch_size])).to(device)
                features[start : start + batch_size] = F.normalize(tower(tokens).float(), dim=-1)
        return features

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


def load(name: str | Path, weights: str | Path | None = None, device: str = "cpu") -> Model:
    """Load a model.

    Args:
        name: An open_clip name with its pretrained tag ("ViT-L-14-336/openai"), a local folder that holds
            `open_clip_config.json`, "hf-hub:org/repo", a released MCIP checkpoint ("mcip/ViT-L-14-336",
            "mcip/ViT-SO400M-14-SigLIP-384"), or "toyshop", the small base model in the package.
        weights: A `.pth` or `.safetensors` state dict put on top, every key and shape checked. The name's own weights
            are then not fetched.
        device: Where to put it.

    Raises:
        ModelError: The name is unknown, or the weights cannot be had or do not fit.
    """
    recipe = resolve(name)
    if recipe.fill is None:
        if weights is None:
            raise no_weights(str(name))
        warn_of_quick_gelu(str(name), recipe.model_cfg)
    with SkipInit():
        model = _build(recipe, str(name))
    if weights is not None:
        load_strict(model.clip, read_state_dict(weights), str(weights), str(name))
    elif recipe.fill is not None:
        recipe.fill(model.clip)
    model.clip.to(device)
    return model


def create(name: str, seed: int = 0, device: str = "cpu") -> Model:
    """Make a model with random weights, the same for the same seed. Nothing is fetched, even for a name with a tag."""
    return _random(resolve(name), name, seed, device)


def from_config(config: Mapping[str, Any], seed: int = 0, source: str = "configuration", device: str = "cpu") -> Model:
    """Make a model with random weights from the content of an `open_clip_config.json`.

    Raises:
        ModelError: The configuration lacks something, or open_clip cannot build it.
    """
    return _random(Recipe(*split_config(config, source), None), source, seed, device)


def save(model: Model, folder: str | Path, made_by: dict[str, Any] | None = None) -> Path:
    """Write a folder that `open_clip.create_model_and_transforms("local-dir:<folder>")` loads, whole or not at all.

    It holds `open_clip_config.json`, `open_clip_model.safetensors`, the tokenizer's files where the model uses one of
    Hugging Face, and a manifest. A folder that `save` wrote before is replaced.

    Args:
        model: What to write.
        folder: Where to.
        made_by: What made it, recorded in the manifest.

    Raises:
        ModelError: `folder` is there and holds something that `save` did not write.
        ArtefactError: The disk is full.
    """
    folder = Path(folder)
    if folder.exists() and not _is_ours_to_replace(folder):
        raise ModelError(f"{folder} is there and does not hold a model that mcip saved. Choose another folder.")
    new, old = (folder.with_name(f".{folder.name}.{state}.part") for state in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    try:
        artefact = Artefact.begin(new, "model", made_by or {})
        if missing := write_tokenizer(model.model_cfg, model.folder, lambda: model.tokenizer, new):
            warnings.warn(f"{folder} is saved without the files of its tokenizer: {missing}", stacklevel=2)
        with atomic_write(new / WEIGHTS_FILE) as path:
            save_file(plain_state_dict(model.clip), path, metadata={"format": "pt"})
        write_json(new / CONFIG_FILE, {"model_cfg": model.model_cfg, "preprocess_cfg": model.preprocess_cfg})
        artefact.finish(source=model.source, fingerprint=model.fingerprint)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _random(recipe: Recipe, source: str, seed: int, device: str) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(recipe, source)
    model.clip.to(device)
    return model


def _build(recipe: Recipe, source: str) -> Model:
    """Make the modules from the configuration, through open_clip's own reading of it."""
    config = {
        "model_cfg": recipe.model_cfg,
        "preprocess_cfg": merge_preprocess_dict(PreprocessCfg(), recipe.preprocess_cfg),
    }
    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        (Path(folder) / CONFIG_FILE).write_text(json.dumps(config))
        try:
            clip = open_clip.create_model(LOCAL + folder, load_weights=False, pretrained_text=False)
        except Exception as error:
            raise ModelError(f"open_clip cannot build {source} from its configuration: {error}") from error
    preprocess_cfg = json.loads(json.dumps(clip.visual.preprocess_cfg))
    return Model(clip.eval(), deepcopy(recipe.model_cfg), preprocess_cfg, source, recipe.folder)


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep open_clip from saying that the model has no weights yet, and from configuring the root logger to say it."""
    root, silent = logging.getLogger(), logging.NullHandler()

    def other_origin(record: logging.LogRecord) -> bool:
        return "open_clip" not in Path(record.pathname).parts

    root.addHandler(silent)
    root.addFilter(other_origin)
    try:
        yield
    finally:
        root.removeFilter(other_origin)
        root.removeHandler(silent)


def _is_ours_to_replace(folder: Path) -> bool:
    return folder.is_dir() and (Artefact.is_one(folder, "model") or not any(folder.iterdir()))
