"""A model's preprocessing of images and its tokenizer, as `transformers` has them."""

from __future__ import annotations

import string
from copy import deepcopy
from typing import Any, Final

from mcip.core.errors import ModelError
from mcip.models.hf_towers import Family
from mcip.models.model import Model

_START, _END = "<|startoftext|>", "<|endoftext|>"
# What CLIP's own tokenizer does to texts; `CLIPTokenizer` does no other.
_CLEAN: Final = "lower"


def make_processor(model: Model, family: Family) -> Any:
    """`CLIPProcessor` or `SiglipProcessor` with the model's preprocessing and tokens.

    Raises:
        ModelError: `transformers` cannot prepare images or texts as the model needs them, or the files of the
            tokenizer cannot be had.
    """
    import transformers

    tokenizer = _clip_tokenizer(model) if family == "clip" else _siglip_tokenizer(model)
    kind = transformers.CLIPImageProcessor if family == "clip" else transformers.SiglipImageProcessor
    processor = transformers.CLIPProcessor if family == "clip" else transformers.SiglipProcessor
    return processor(image_processor=kind(**image_settings(model)), tokenizer=tokenizer)


def image_settings(model: Model) -> dict[str, Any]:
    """What an image processor of `transformers` needs to prepare images as the model's own transform does.

    Raises:
        ModelError: The model pads images, which these image processors do not.
    """
    config, side = model.preprocess_cfg, model.image_size
    mode = config.get("resize_mode") or "shortest"
    if mode == "longest":
        raise ModelError(f"{model.source} pads images (resize_mode longest), which transformers does not for it.")
    square = {"height": side, "width": side}
    crops = mode == "shortest"
    return {
        "do_convert_rgb": True, "do_resize": True, "size": {"shortest_edge": side} if crops else square,
        "resample": 2 if config.get("interpolation") == "bilinear" else 3, "do_center_crop": crops,
        "crop_size": square if crops else None, "do_rescale": True, "do_normalize": True,
        "image_mean": list(model.transform().mean), "image_std": list(model.transform().std),
    }  # fmt: skip


def _clip_tokenizer(model: Model) -> Any:
    """`CLIPTokenizer` with the vocabulary and the merges of open_clip's `SimpleTokenizer`."""
    from transformers import CLIPTokenizer

    settings = model.model_cfg["text_cfg"].get("tokenizer_kwargs") or {}
    for key, value in {"clean": _CLEAN, "additional_special_tokens": None, "reduction_mask": ""}.items():
        if settings.get(key, value) not in (value, []):
            raise ModelError(f"{model.source} reads texts with {key} = {settings[key]!r}, which CLIPTokenizer cannot.")
    own: Any = model.tokenizer
    names = {"<start_of_text>": _START, "<end_of_text>": _END}
    vocabulary = {names.get(word, word): number for word, number in own.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(own.bpe_ranks), model_max_length=own.context_length)


def _siglip_tokenizer(model: Model) -> Any:
    """The tokenizer of the hub that the model names, which cleans texts as open_clip does before."""
    from tokenizers import Regex, normalizers
    from transformers import PreTrainedTokenizerFast

    wrapped: Any = model.tokenizer
    wrapped = getattr(wrapped, "_tokenizer", wrapped)
    named: Any = getattr(wrapped, "tokenizer", None)
    if getattr(named, "backend_tokenizer", None) is None:
        raise ModelError(f"{model.source} reads texts with {type(named or wrapped).__name__}, which cannot be written.")
    settings = model.model_cfg["text_cfg"].get("tokenizer_kwargs") or {}
    backend = deepcopy(named.backend_tokenizer)
    steps: list[Any] = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if settings.get("clean") == "canonicalize":
        marks = "".join(f"\\{mark}" for mark in string.punctuation)
        steps = [normalizers.Replace("_", " "), normalizers.Replace(Regex(f"[{marks}]"), ""), normalizers.Lowercase(),
                 *steps]  # fmt: skip
    backend.normalizer = normalizers.Sequence([*steps, *([backend.normalizer] if backend.normalizer else [])])
    special = {
        f"{name}_token": getattr(named, f"{name}_token")
        for name in ("bos", "eos", "unk", "pad", "sep", "cls")
        if getattr(named, f"{name}_token", None) is not None
    }
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=backend, model_max_length=wrapped.context_length, model_input_names=["input_ids"], **special
    )
