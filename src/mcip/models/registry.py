"""Names of models: what each stands for, and where its weights come from."""

from __future__ import annotations

import importlib.resources
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from mcip.core.errors import ArtefactError, ModelError
from mcip.core.files import read_json
from mcip.models.carried import ADAPTER_FILE, ADAPTER_KEY, carry, read_adapter
from mcip.models.config_check import check_config
from mcip.models.download import RELEASED, fetch_released
from mcip.models.hub import fetch_file
from mcip.models.state_dict import check_stated_sizes, load_strict, read_state_dict

KIND: Final = "model"  # of the artefact that a saved model is
CONFIG_FILE: Final = "open_clip_config.json"
WEIGHTS_FILE: Final = "open_clip_model.safetensors"
TOYSHOP: Final = "toyshop"
LOCAL: Final = "local-dir:"
_HUB: Final = "hf-hub:"
# Weights in folders that others made, in the order in which open_clip prefers them.
_WEIGHTS_FILES: Final = (
    WEIGHTS_FILE, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What a name stands for: a configuration, and where its own weights come from."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    fill: Callable[[nn.Module], None] | None  # puts the name's own weights in; None where it has none
    folder: Path | None = None


def resolve(name: str | os.PathLike[str]) -> Recipe:
    """Find what `name` stands for, as `mcip.load` takes it. Only "hf-hub:" names need a network for it.

    Raises:
        ModelError: The name is unknown, or a folder's configuration is missing or wrong.
    """
    text = os.fspath(name)
    if text == TOYSHOP:
        return _from_folder(Path(str(importlib.resources.files("mcip.toyshop") / "base")))
    if text in RELEASED:
        base = resolve(RELEASED[text].base)
        return Recipe(base.model_cfg, base.preprocess_cfg, _file_filler(lambda: fetch_released(text), text))
    if text.startswith(_HUB):
        return _from_hub(text.removeprefix(_HUB))
    if not isinstance(name, str) or text.startswith(LOCAL) or (Path(text) / CONFIG_FILE).is_file():
        return _from_folder(Path(text.removeprefix(LOCAL)))
    architecture = _architecture(text)
    model_cfg = open_clip.get_model_config(architecture)
    if model_cfg is None:
        if Path(text).is_dir():
            return _from_folder(Path(text))
        raise _unknown(text)
    split_config({"model_cfg": model_cfg}, architecture)
    if architecture == text.replace("/", "-"):
        return Recipe(model_cfg, {}, None)
    tag = text.rpartition("/")[2]
    tag_cfg = open_clip.get_pretrained_cfg(architecture, tag)
    if not tag_cfg:
        known = _tags(architecture)
        raise ModelError(
            f"{architecture} has no pretrained tag {tag!r}.{_nearest(tag, known)} It has: {', '.join(known) or 'none'}."
        )
    # open_clip only warns where the configuration lacks the activation that the tag was trained with.
    if "quick_gelu" in tag_cfg:
        model_cfg["quick_gelu"] = bool(tag_cfg["quick_gelu"])
    return Recipe(model_cfg, tag_cfg, _tag_filler(text, tag_cfg))


def no_weights(name: str) -> ModelError:
    """The error for a name without weights of its own, when no others are given."""
    tags = _tags(_architecture(name))
    choice = f"Add one of its pretrained tags ({', '.join(tags)}), as in {name}/{tags[0]}, or" if tags else "You can"
    return ModelError(
        f"{name} names an architecture without weights. {choice} give weights=FILE; "
        f"mcip.models.create({name!r}) gives random weights."
    )


def _architecture(text: str) -> str:
    """The open_clip architecture in "name" or "name/tag"; "ViT-B/32" is an old way to write "ViT-B-32"."""
    whole = text.replace("/", "-")
    return whole if whole in open_clip.list_models() else text.rpartition("/")[0].replace("/", "-") or whole


def _unknown(text: str) -> ModelError:
    names = [*open_clip.list_models(), *RELEASED, TOYSHOP]
    with_tags = [f"{model}/{tag}" for model, tag in open_clip.list_pretrained()]
    return ModelError(
        f"There is no model {text!r}: it is no open_clip name and no folder.{_nearest(text, [*names, *with_tags])} "
        "`mcip models` lists some worth knowing, open_clip.list_pretrained() all names and tags."
    )


def _nearest(text: str, known: Sequence[str]) -> str:
    lower = {name.lower(): name for name in known}
    found = get_close_matches(text.lower(), lower, n=1, cutoff=0.6)
    return f" The nearest is {lower[found[0]]}." if found else ""


def _from_folder(folder: Path) -> Recipe:
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.")
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder} is not a model folder: it has no {CONFIG_FILE}.")
    model_cfg, preprocess_cfg, adapted = _read_config(folder / CONFIG_FILE)
    found = [folder / file for file in _WEIGHTS_FILES if (folder / file).is_file()]
    file = found[0] if found else folder / WEIGHTS_FILE
    fill = _file_filler(lambda: file, str(folder))
    if adapted:
        fill = _with_adapter(fill, lambda: folder / ADAPTER_FILE)
    return Recipe(model_cfg, preprocess_cfg, fill, folder)


def _from_hub(repo: str) -> Recipe:
    model_cfg, preprocess_cfg, adapted = _read_config(fetch_file(repo, CONFIG_FILE))
    fill = _hub_filler(f"{_HUB}{repo}", repo, HF_WEIGHTS_NAME)
    if adapted:
        fill = _with_adapter(fill, lambda: fetch_file(repo, ADAPTER_FILE))
    return Recipe(model_cfg, preprocess_cfg, fill)


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """The `model_cfg` and `preprocess_cfg` of a file, and whether the model carries an adapter."""
    try:
        config = read_json(path)
        model_cfg, preprocess_cfg = split_config(config, str(path))
    except ArtefactError as error:
        raise ModelError(str(error)) from error
    for part in (model_cfg, preprocess_cfg):
        check_config(part, str(path), path.parent)
    return model_cfg, preprocess_cfg, ADAPTER_KEY in config


def split_config(config: Any, origin: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `model_cfg` and `preprocess_cfg` in the content of an `open_clip_config.json`.

    Raises:
        ModelError: It is not such a configuration.
    """
    model_cfg = config.get("model_cfg") if isinstance(config, Mapping) else None
    if not isinstance(model_cfg, Mapping):
        raise ModelError(f"{origin} is not a configuration of open_clip: it has no model_cfg.")
    if lacking := [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in model_cfg]:
        raise ModelError(
            f"{origin} does not describe an image tower and a text tower: its model_cfg lacks {', '.join(lacking)}."
        )
    return deepcopy(dict(model_cfg)), deepcopy(dict(config.get("preprocess_cfg") or {}))


def _file_filler(find: Callable[[], Path], target: str) -> Callable[[nn.Module], None]:
    def fill(clip: nn.Module) -> None:
        path = find()
        load_strict(clip, read_state_dict(path), str(path), target)

    return fill


def _with_adapter(fill: Callable[[nn.Module], None], find: Callable[[], Path]) -> Callable[[nn.Module], None]:
    """Fill with weights, then with the matrix that the model carries."""

    def filled(clip: nn.Module) -> None:
        fill(clip)
        carry(clip, read_adapter(find()))

    return filled


def _tag_filler(name: str, tag_cfg: dict[str, Any]) -> Callable[[nn.Module], None]:
    """Fill with the weights of a tag, which open_clip names as "org/name/" or "org/name/file"."""
    repo, _, file = tag_cfg["hf_hub"].rpartition("/")
    return _hub_filler(name, repo, file or HF_WEIGHTS_NAME)


def _hub_filler(name: str, repo: str, file: str) -> Callable[[nn.Module], None]:
    """Fill with open_clip's own reader, which converts the formats of the checkpoints it lists."""

    def fill(clip: nn.Module) -> None:
        safe = HF_SAFE_WEIGHTS_NAME if file == HF_WEIGHTS_NAME else str(Path(file).with_suffix(".safetensors"))
        path = fetch_file(repo, *dict.fromkeys((safe, file)))
        check_stated_sizes(path)
        try:
            open_clip.load_checkpoint(clip, str(path), strict=True, weights_only=True)
        except Exception as error:
            raise ModelError(f"The weights of {name} in {path} cannot be used: {error}") from error

    return fill


def warn_without_tag(name: str, recipe: Recipe) -> None:
    """Warn where a name without a tag does not say how the weights put on top were trained.

    The activation and the preprocessing of some pretrained tags differ from what the architecture's configuration says;
    weights that descend from such a tag fit all the same, and give worse embeddings.
    """
    architecture = _architecture(name)
    quick_gelu = bool(recipe.model_cfg.get("quick_gelu"))
    preprocessing = _preprocessing(recipe.preprocess_cfg)
    tags = {tag: open_clip.get_pretrained_cfg(architecture, tag) for tag in _tags(architecture)}
    other = [tag for tag, cfg in tags.items() if bool(cfg.get("quick_gelu", quick_gelu)) != quick_gelu]
    if other:
        warnings.warn(
            f"{name} without a tag is built {'with' if quick_gelu else 'without'} QuickGELU. If the weights descend "
            f"from one of its tags {', '.join(other)}, name it, as in {name}/{other[0]}: else embeddings are worse.",
            stacklevel=4,
        )
    other = [tag for tag, cfg in tags.items() if _preprocessing(cfg) != preprocessing]
    if other:
        warnings.warn(
            f"{name} without a tag gets open_clip's default preprocessing of images. If the weights descend from one "
            f"of its tags {', '.join(other)}, name it, as in {name}/{other[0]}: else embeddings are worse.",
            stacklevel=4,
        )


def _preprocessing(cfg: Mapping[str, Any]) -> dict[str, Any]:
    merged = merge_preprocess_dict(PreprocessCfg(), dict(cfg))
    return {key: merged[key] for key in ("mean", "std", "interpolation", "resize_mode")}


def _tags(architecture: str) -> list[str]:
    return list(open_clip.list_pretrained_tags_by_model(architecture))
