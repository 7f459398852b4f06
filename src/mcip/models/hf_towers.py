"""The weights and the configuration of a model under the names that `transformers` gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, Literal, TypeAlias

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from mcip.core.errors import ModelError
from mcip.models.model import Model

Family: TypeAlias = Literal["clip", "siglip"]
# What may differ between models of a family; every other setting has to be open_clip's default.
_FREE_TEXT: Final = {
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "act_kwargs", "norm_kwargs",
    "tokenizer_kwargs", "tokenizer_mode",
}  # fmt: skip
_FREE_VISION: Final = {
    "layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout", "act_kwargs",
    "norm_kwargs",
}  # fmt: skip
_SIGLIP_TEXT: Final = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
_SIGLIP_VISION: Final = {"timm_pool": "map", "timm_proj": "none"}
_SIGLIP_FREE: Final = {"image_size", "timm_model_name", "timm_model_pretrained", "timm_drop", "timm_drop_path"}

_TEXT_RULES: Final = (
    (r"token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    (r"positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"ln_final\.(.+)", r"text_model.final_layer_norm.\1"),
    (r"transformer\.resblocks\.(.+)", r"text_model.encoder.layers.\1"),
    (r"(logit_scale|logit_bias)", r"\1"),
)
_RULES: Final[dict[Family, tuple[tuple[str, str], ...]]] = {
    "clip": (
        *_TEXT_RULES,
        (r"text_projection", "text_projection.weight.T"),
        (r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
        (r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        (r"visual\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
        (r"visual\.ln_pre\.(.+)", r"vision_model.pre_layrnorm.\1"),
        (r"visual\.ln_post\.(.+)", r"vision_model.post_layernorm.\1"),
        (r"visual\.transformer\.resblocks\.(.+)", r"vision_model.encoder.layers.\1"),
        (r"visual\.proj", "visual_projection.weight.T"),
    ),
    "siglip": (
        *_TEXT_RULES,
        (r"text_projection\.(.+)", r"text_model.head.\1"),
        (r"visual\.trunk\.pos_embed", "vision_model.embeddings.position_embedding.weight"),
        (r"visual\.trunk\.patch_embed\.proj\.(.+)", r"vision_model.embeddings.patch_embedding.\1"),
        (r"visual\.trunk\.norm\.(.+)", r"vision_model.post_layernorm.\1"),
        (r"visual\.trunk\.blocks\.(.+)", r"vision_model.encoder.layers.\1"),
        (r"visual\.trunk\.attn_pool\.latent", "vision_model.head.probe"),
        (r"visual\.trunk\.attn_pool\.norm\.(.+)", r"vision_model.head.layernorm.\1"),
        (r"visual\.trunk\.attn_pool\.proj\.(.+)", r"vision_model.head.attention.out_proj.\1"),
        (r"visual\.trunk\.attn_pool\.mlp\.(.+)", r"vision_model.head.mlp.\1"),
        (r"visual\.trunk\.attn_pool\.(q|kv)\.(.+)", r"vision_model.head.attention.\1.\2"),
    ),
}  # fmt: skip
# Parts of a block, as open_clip and timm call them. `in_proj` holds the queries', keys' and values' weights.
_BLOCK: Final = (
    (r"\.(ln_1|norm1)\.", ".layer_norm1."),
    (r"\.(ln_2|norm2)\.", ".layer_norm2."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.(in_proj_|qkv\.)", ".self_attn.in_proj_"),
    (r"\.attn\.(out_proj|proj)\.", ".self_attn.out_proj."),
)


def family_of(model_cfg: Mapping[str, Any]) -> Family:
    """Which model of `transformers` computes what a configuration describes: "clip" or "siglip".

    Args:
        model_cfg: As `open_clip_config.json` holds it.

    Raises:
        ModelError: None does; the message is the setting that differs.
    """
    vision, text = dict(model_cfg["vision_cfg"]), dict(model_cfg["text_cfg"])
    siglip = "timm_model_name" in vision
    if not siglip and isinstance(vision.get("layers"), list | tuple):
        raise ModelError("its image tower is a ResNet")
    if siglip and vision.get("timm_pool") != "map":
        raise ModelError(f"its image tower is timm's {vision['timm_model_name']}")
    if "multimodal_cfg" in model_cfg:
        raise ModelError("it has a third tower that writes captions")
    vision_expected: Mapping[str, Any] = _SIGLIP_VISION if siglip else {}
    text_expected: Mapping[str, Any] = _SIGLIP_TEXT if siglip else {}
    free_text = _FREE_TEXT | ({"hf_tokenizer_name"} if siglip else set())
    _check("vision_cfg", vision, CLIPVisionCfg, vision_expected, _SIGLIP_FREE if siglip else _FREE_VISION)
    _check("text_cfg", text, CLIPTextCfg, text_expected, free_text)
    return "siglip" if siglip else "clip"


def convertible_names() -> list[str]:
    """The names of open_clip's architectures that `transformers` has too."""
    names = []
    for name in open_clip.list_models():
        try:
            family_of(open_clip.get_model_config(name) or {})
        except (ModelError, KeyError):
            continue
        names.append(name)
    return names


def converted_state(model: Model, family: Family) -> dict[str, Tensor]:
    """The weights by the names of `transformers`, float32 and contiguous.

    Raises:
        ModelError: The model has weights that `transformers` has no place for.
    """
    result: dict[str, Tensor] = {}
    for key, value in model.clip.state_dict().items():
        name = _renamed(key.removeprefix("text."), _RULES[family])
        if name is None:
            raise ModelError(f"{model.source} has weights {key}, for which transformers has no place.")
        weights = value.detach().float().cpu()
        if name.endswith(".T"):
            name, weights = name.removesuffix(".T"), weights.T
        for part, tensor in _split(name, weights).items():
            result[part] = tensor.clone().contiguous()
    if family == "siglip":
        _join_pooler(result)
    return result


def converted_config(model: Model, family: Family) -> dict[str, Any]:
    """The content of `config.json` as `CLIPConfig` and `SiglipConfig` take it, read from the modules."""
    clip = model.clip
    text = getattr(clip, "text", clip)
    position, vocabulary = text.positional_embedding.shape[0], text.token_embedding.weight.shape[0]
    text_config = _tower_config(text.transformer.resblocks, text.ln_final)
    text_config |= {"vocab_size": vocabulary, "max_position_embeddings": position}
    if family == "clip":
        vision_config = _tower_config(clip.visual.transformer.resblocks, clip.visual.ln_post)
        side, patch = clip.visual.image_size[0], clip.visual.patch_size[0]
        text_config["projection_dim"] = vision_config["projection_dim"] = model.embed_dim
        text_config |= {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    else:
        trunk = clip.visual.trunk
        vision_config = _tower_config(trunk.blocks, trunk.norm)
        side, patch = trunk.patch_embed.img_size[0], trunk.patch_embed.patch_size[0]
        text_config |= {"projection_size": model.embed_dim}
    vision_config |= {"image_size": side, "patch_size": patch}
    config = {"text_config": text_config, "vision_config": vision_config}
    return config | ({"projection_dim": model.embed_dim} if family == "clip" else {})


def _check(name: str, given: Mapping[str, Any], kind: type, expected: Mapping[str, Any], free: set[str]) -> None:
    defaults = {field.name: field.default for field in fields(kind)} | dict(expected)
    for key in sorted({*given, *expected} - free):
        value = given.get(key, None if key in expected else defaults.get(key))
        if key not in defaults or value != defaults[key]:
            raise ModelError(f"its {name} has {key} = {value!r}")


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, target in rules:
        if found := re.fullmatch(pattern, key):
            name = found.expand(target)
            for part, replacement in _BLOCK:
                name = re.sub(part, replacement, name)
            return name
    return None


def _split(name: str, weights: Tensor) -> dict[str, Tensor]:
    """The queries', keys' and values' weights by themselves, and tables without a batch axis."""
    if ".self_attn.in_proj_" in name:
        kind = name.rpartition("_")[2]
        place = name.removesuffix(f"in_proj_{kind}")
        return {f"{place}{part}_proj.{kind}": rows for part, rows in zip("qkv", weights.chunk(3), strict=True)}
    if name.endswith("position_embedding.weight"):
        return {name: weights.reshape(-1, weights.shape[-1])}
    return {name: weights.reshape(1) if name == "logit_bias" else weights}


def _join_pooler(state: dict[str, Tensor]) -> None:
    """Join the pooler's queries, keys and values as `nn.MultiheadAttention` has them; its scale has one element."""
    place = "vision_model.head.attention"
    for kind in ("weight", "bias"):
        parts = [state.pop(f"{place}.{part}.{kind}") for part in ("q", "kv")]
        state[f"{place}.in_proj_{kind}"] = torch.cat(parts)
    state["logit_scale"] = state["logit_scale"].reshape(1)


def _tower_config(blocks: nn.Module, norm: Any) -> dict[str, Any]:
    first: Any = next(iter(blocks.children()))
    widening = first.mlp.c_fc if hasattr(first.mlp, "c_fc") else first.mlp.fc1
    return {
        "hidden_size": widening.in_features, "intermediate_size": widening.out_features,
        "num_hidden_layers": len(list(blocks.children())), "num_attention_heads": first.attn.num_heads,
        "hidden_act": _activation(first.mlp.gelu if hasattr(first.mlp, "gelu") else first.mlp.act),
        "layer_norm_eps": norm.eps,
    }  # fmt: skip


def _activation(module: nn.Module) -> str:
    if isinstance(module, QuickGELU):
        return "quick_gelu"
    name, approximate = type(module).__name__, getattr(module, "approximate", "none")
    if name == "GELUTanh" or (name == "GELU" and approximate == "tanh"):
        return "gelu_pytorch_tanh"
    if name == "GELU":
        return "gelu"
    raise ModelError(f"its activation is {name}")
