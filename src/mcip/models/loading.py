"""Models made: by name, from a folder, from a configuration, or with weights put on top."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from mcip.core.artefacts import Artefact
from mcip.core.errors import ModelError
from mcip.models.carried import carry
from mcip.models.config_check import check_config
from mcip.models.model import Model
from mcip.models.registry import CONFIG_FILE, KIND, LOCAL, Recipe, no_weights, resolve, split_config, warn_without_tag
from mcip.models.state_dict import SkipInit, load_strict, read_state_dict


def load(
    name: str | os.PathLike[str] | Model, weights: str | os.PathLike[str] | None = None, device: str | None = None
) -> Model:
    """Load a model.

    Args:
        name: An open_clip name with its pretrained tag ("ViT-L-14-336/openai"), a local folder that holds
            `open_clip_config.json`, "hf-hub:org/repo", a released MCIP checkpoint ("mcip/ViT-L-14-336",
            "mcip/ViT-SO400M-14-SigLIP-384"), or "toyshop", the small base model in the package. A loaded model is
            given back as it is.
        weights: A `.pth` or `.safetensors` state dict put on top, every key and shape checked. The name's own weights
            are then not fetched. A loaded model keeps its own; the result is a copy.
        device: Where to put it: the CPU if not given, where a loaded model is.

    Raises:
        ModelError: The name is unknown, or the weights cannot be had or do not fit.
        ArtefactError: A file of a model that mcip saved is not what was written.

    Example:
        >>> import mcip
        >>> model = mcip.load("toyshop")
        >>> model.image_size, model.embed_dim
        (64, 256)
    """
    # Weights made in inference mode could neither be trained nor be watched for changes.
    with torch.inference_mode(False):
        model = _on_top(name, weights) if isinstance(name, Model) else _load(name, weights)
        if device is not None:
            model.clip.to(device)
    return model


def _on_top(model: Model, weights: str | os.PathLike[str] | None) -> Model:
    if weights is None:
        return model
    changed = model.copy()
    load_strict(changed.clip, _weights(weights), os.fspath(weights), model.source)
    carry(changed.clip, None)
    return changed


def _load(name: str | os.PathLike[str], weights: str | os.PathLike[str] | None) -> Model:
    source = os.fspath(name)
    recipe = resolve(name)
    if recipe.fill is None:
        if weights is None:
            raise no_weights(source)
        warn_without_tag(source, recipe)
    if recipe.folder is not None:
        Artefact.verify(recipe.folder, KIND)
    with SkipInit():
        model = _build(recipe, source)
    if weights is not None:
        load_strict(model.clip, _weights(weights), os.fspath(weights), source)
    elif recipe.fill is not None:
        recipe.fill(model.clip)
    return model


def _weights(file: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    Artefact.verify(Path(file).parent, KIND)
    return read_state_dict(file)


def create(name: str, seed: int = 0, device: str = "cpu") -> Model:
    """Make a model with random weights, the same for the same seed. Nothing is fetched, even for a name with a tag.

    Example:
        >>> import mcip
        >>> mcip.create("toyshop", seed=1).embed_dim
        256
    """
    return _random(resolve(name), name, seed, device)


def from_config(config: Mapping[str, Any], seed: int = 0, source: str = "configuration", device: str = "cpu") -> Model:
    """Make a model with random weights from the content of an `open_clip_config.json`.

    Raises:
        ModelError: The configuration lacks something, or open_clip cannot build it.
    """
    model_cfg, preprocess_cfg = split_config(config, source)
    for part in (model_cfg, preprocess_cfg):
        check_config(part, source)
    return _random(Recipe(model_cfg, preprocess_cfg, None), source, seed, device)


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
