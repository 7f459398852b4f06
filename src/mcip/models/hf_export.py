"""A model written for `transformers`, and for `sentence-transformers`, once its embeddings are ours."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mcip.core.artefacts import Artefact
from mcip.core.errors import ModelError
from mcip.core.optional import module
from mcip.models.export_probes import probe_images, probe_texts
from mcip.models.hf_processor import make_processor
from mcip.models.hf_towers import Family, converted_config, converted_state, convertible_names, family_of
from mcip.models.model import Model
from mcip.models.saved import replaced_folder

KIND: Final = "transformers"
# The largest difference, in any component of an embedding of unit length, between a tower here and there.
TOLERANCE: Final = 1e-5
# The least cosine from an image on: torchvision rounds resized pixels differently than Pillow.
LEAST_COSINE: Final = 0.9999
_IMAGES: Final = 16


@dataclass(frozen=True)
class SavedTransformers:
    """A folder that `mcip export` wrote for `transformers` or `sentence-transformers`. It stands for its path.

    Attributes:
        folder: The folder, which `AutoModel.from_pretrained` and `AutoProcessor.from_pretrained` load.
    """

    folder: Path

    def __fspath__(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def __str__(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` says: `source`, `family`, `difference` of both towers and `cosine` from files on."""
        return Artefact.open(self.folder, KIND).manifest


def write_transformers(model: Model, folder: str | os.PathLike[str], sentence: bool = False) -> Path:
    """Write a model for `transformers`, atomically, once both towers compute what they compute here.

    Args:
        model: What to write.
        folder: Where to: missing, empty, or such a folder, which is replaced.
        sentence: Add the files by which `SentenceTransformer(folder)` loads it: embeddings of unit length.

    Raises:
        ModelError: `transformers` has no such model, its embeddings differ, or `folder` is in the way.
        ConfigError: `transformers` or `sentence-transformers` is not installed.
    """
    for package in ("transformers", *(["sentence_transformers"] if sentence else [])):
        module(package)
    family = _family(model)
    with replaced_folder(Path(folder), KIND, "a model that mcip exported for transformers") as new:
        artefact = Artefact.begin(new, KIND, {"fingerprint": model.fingerprint, "sentence": sentence})
        with _quiet():
            difference = _write(model, family, new)
            cosine = _check_cosines(model, _by_transformers(new, family))
            if sentence:
                _write_sentence(new, family)
                _check_cosines(model, _by_sentence_transformers(new))
        artefact.finish(source=model.source, family=family, difference=difference, cosine=cosine)
    return Path(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and notes of `transformers` about files, and those of PyTorch about what it imports."""
    from transformers.utils import logging as transformers_logging

    transformers_log: Any = transformers_logging
    shown, verbosity = transformers_log.is_progress_bar_enabled(), transformers_log.get_verbosity()
    torch_log = logging.getLogger("torch.utils._pytree")
    level = torch_log.level
    torch_log.setLevel(logging.ERROR)
    transformers_log.disable_progress_bar()
    transformers_log.set_verbosity_error()
    try:
        yield
    finally:
        torch_log.setLevel(level)
        transformers_log.set_verbosity(verbosity)
        if shown:
            transformers_log.enable_progress_bar()


def _family(model: Model) -> Family:
    try:
        return family_of(model.model_cfg)
    except ModelError as error:
        raise ModelError(
            f"{model.source} cannot be written for transformers: {error}. What can be: models of the architectures "
            f"{', '.join(convertible_names())}, and others like them. Format open_clip takes every model, onnx each "
            "with CLIP's own tokenizer."
        ) from error


def _write(model: Model, family: Family, new: Path) -> dict[str, float]:
    """Write the model and its processor; the largest difference of each tower to ours."""
    import transformers

    kind: Any = transformers.CLIPModel if family == "clip" else transformers.SiglipModel
    converted = kind(kind.config_class(**converted_config(model, family))).eval()
    state = converted_state(model, family)
    if family == "siglip" and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros(1)
    missing, unexpected = converted.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ModelError(
            f"{model.source} cannot be written for transformers: its {type(converted).__name__} lacks "
            f"{', '.join([*missing, *unexpected][:5])}."
        )
    processor = make_processor(model, family)
    difference = _differences(model, converted, processor)
    for tower, value in difference.items():
        if not value <= TOLERANCE:
            raise ModelError(
                f"The {tower} tower of {model.source} differs in transformers: the largest difference of a component "
                f"is {value:.2g}, but at most {TOLERANCE:.0e} is allowed. Nothing was written."
            )
    converted.save_pretrained(new)
    processor.save_pretrained(new)
    return difference


def _differences(model: Model, converted: Any, processor: Any) -> dict[str, float]:
    """The largest difference of a component, for our pixels and for our tokens; and that tokens are the same."""
    texts, transform = probe_texts(), model.transform()
    tokens = model.tokenizer(texts)
    actual = processor.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    if other := _first_other(tokens, actual, texts):
        raise ModelError(f"The tokenizer of {model.source} differs in transformers for the text {other!r}.")
    pixels = transform.finish(
        torch.stack([transform.prepare(image) for image in probe_images(model.image_size, _IMAGES)])
    )
    with torch.no_grad():
        images = _unit(converted.get_image_features(pixel_values=pixels))
        encoded = _unit(converted.get_text_features(input_ids=actual))
    return {
        "image": _largest(model.embed_pixels(pixels), images),
        "text": _largest(model.embed_tokens(tokens), encoded),
    }


def _first_other(expected: Tensor, actual: Tensor, texts: list[str]) -> str | None:
    """The first text whose tokens differ up to the end; what pads them behind it has no effect in CLIP."""
    for ours, converted, text in zip(expected, actual, texts, strict=True):
        length = int(ours.argmax()) + 1 if int(ours[-1]) == 0 else len(ours)
        if not torch.equal(ours[:length].cpu(), converted[:length]):
            return text
    return None


def _by_transformers(folder: Path, family: Family) -> Callable[[list[Any], Literal["image", "text"]], Tensor]:
    from transformers import AutoModel, AutoProcessor

    processors: Any = AutoProcessor
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = processors.from_pretrained(folder, local_files_only=True)

    def embed(inputs: list[Any], kind: Literal["image", "text"]) -> Tensor:
        with torch.no_grad():
            if kind == "image":
                return _unit(model.get_image_features(**processor(images=inputs, return_tensors="pt")))
            padding = "max_length" if family == "siglip" else True
            return _unit(
                model.get_text_features(**processor(text=inputs, padding=padding, truncation=True, return_tensors="pt"))
            )

    return embed


def _by_sentence_transformers(folder: Path) -> Callable[[list[Any], Literal["image", "text"]], Tensor]:
    model = module("sentence_transformers").SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def embed(inputs: list[Any], kind: Literal["image", "text"]) -> Tensor:
        return torch.from_numpy(np.asarray(model.encode(inputs, show_progress_bar=False)))

    return embed


def _write_sentence(folder: Path, family: Family) -> None:
    """Add the files of `sentence-transformers` to a folder of `transformers`."""
    library = module("sentence_transformers")
    from sentence_transformers.base.modules import Normalize, Transformer

    processing: Any = {"text": {"padding": "max_length"}} if family == "siglip" else None
    transformer = Transformer(str(folder), processing_kwargs=processing)
    # Its weights may be mapped from the folder: what it writes again must not take the place of what it reads.
    with tempfile.TemporaryDirectory(dir=folder) as other:
        modules = [transformer, Normalize()]
        library.SentenceTransformer(modules=modules, device="cpu").save(other, create_model_card=False)
        for path in Path(other).iterdir():
            if not (folder / path.name).exists():
                path.rename(folder / path.name)


def _check_cosines(model: Model, embed: Callable[[list[Any], Literal["image", "text"]], Tensor]) -> dict[str, float]:
    """The least cosine of an image and of a text, from the decoded image and the text on.

    Images are square: of others, `transformers` crops the center one pixel further left or up where 3, 7, 11 ... pixels
    are left over, which no setting changes.
    """
    images, texts = [_square(image) for image in probe_images(model.image_size, _IMAGES)], probe_texts()
    cosine = {
        "image": _least(model.encode(images, convert_to_tensor=True), embed(images, "image")),
        "text": _least(model.encode(texts, kind="text", convert_to_tensor=True), embed(texts, "text")),
    }
    if min(cosine.values()) < LEAST_COSINE:
        raise ModelError(f"The embeddings of {model.source} differ in transformers: cosines are {cosine}.")
    return cosine


def _square(image: Image.Image) -> Image.Image:
    return image.crop((0, 0, min(image.size), min(image.size)))


def _unit(output: Any) -> Tensor:
    return F.normalize(getattr(output, "pooler_output", output).float(), dim=-1)


def _largest(expected: Tensor, actual: Tensor) -> float:
    return float((expected.cpu() - actual).abs().max())


def _least(expected: Tensor, actual: Tensor) -> float:
    return float((expected.cpu().double() * actual.double()).sum(dim=1).min())
