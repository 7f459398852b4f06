"""A model written as ONNX, and compared with what PyTorch computes."""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

from mcip.core.artefacts import Artefact
from mcip.core.choices import Quantize
from mcip.core.errors import ModelError
from mcip.core.files import write_json
from mcip.models.bpe import tokenizer_settings
from mcip.models.export_probes import probe_images, probe_texts
from mcip.models.model import Model
from mcip.models.onnx_model import CONFIG, FORMAT, KIND, MERGES, OnnxModel, runtime
from mcip.models.saved import replaced_folder
from mcip.models.text_tower import TextTower, encode_shortened, looks_back_only
from mcip.models.tokenizers import merges_file

# The least cosine between an embedding by ONNX Runtime and the same one by PyTorch.
LEAST_COSINE: Final[dict[Quantize, float]] = {"none": 0.9999, "int8": 0.99}
# Images that are compared, and as many texts.
_CHECKED: Final = 64
# Files of this size cannot hold their weights themselves.
_LARGEST_FILE: Final = 1_800_000_000
_MOST_ROWS: Final = 65_536


def write_onnx(model: Model, folder: str | Path, quantize: Quantize = "none") -> Path:
    """Write both towers of a model as ONNX, atomically, once their embeddings are those of PyTorch.

    Args:
        model: What to write.
        folder: Where to: missing, empty, or an ONNX model that is replaced.
        quantize: "int8" stores the weights of matrix products and embeddings in 8 bits; convolutions stay float32.

    Raises:
        ModelError: The model cannot be written as ONNX, its embeddings differ, or `folder` is in the way.
        ConfigError: The extra `mcip[onnx]` is not installed.
    """
    for package in ("onnxruntime", "onnxscript", *(["onnxruntime.quantization"] if quantize == "int8" else [])):
        runtime(package)
    tokenizer = tokenizer_settings(model.model_cfg, model.source)
    with replaced_folder(folder, KIND, "an ONNX model that mcip exported") as new:
        artefact = Artefact.begin(new, KIND, {"fingerprint": model.fingerprint, "quantize": quantize})
        shorten = _write_towers(model, new)
        if quantize == "int8":
            _quantize(new)
        shutil.copy(merges_file(model.model_cfg, model.folder, model.source), new / MERGES)
        config = {
            "format": FORMAT, "source": model.source, "fingerprint": model.fingerprint, "embed_dim": model.embed_dim,
            "quantize": quantize, "shorten": shorten, "tokenizer": tokenizer, "model_cfg": model.model_cfg,
            "preprocess_cfg": _preprocess_cfg(model),
        }  # fmt: skip
        write_json(new / CONFIG, config)
        cosine = _least_cosines(model, OnnxModel(new))
        worst = min(cosine, key=lambda kind: cosine[kind])
        if not cosine[worst] >= LEAST_COSINE[quantize]:
            raise ModelError(
                f"The ONNX model of {model.source} differs from the model: the worst cosine of {_CHECKED} {worst}s is "
                f"{cosine[worst]:.5f}, but at least {LEAST_COSINE[quantize]} is needed. Nothing was written."
                + (" Export it without --quantize." if quantize == "int8" else "")
            )
        write_json(new / CONFIG, config | {"cosine": cosine})
        artefact.finish(source=model.source, cosine=cosine)
    return Path(folder)


class _Image(nn.Module):
    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.clip.encode_image(pixels).float(), dim=-1)


class _Text(nn.Module):
    """The text tower; the number of tokens may vary where padding changes nothing."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        tower = getattr(self.clip, "text", self.clip)
        features = encode_shortened(tower, tokens) if looks_back_only(tower) else TextTower(self.clip)(tokens, False)
        return F.normalize(features.float(), dim=-1)


def _write_towers(model: Model, folder: Path) -> bool:
    """Write both towers; whether the text tower takes texts without their padding."""
    clip = model.copy().clip.cpu().eval().requires_grad_(False)
    shorten = looks_back_only(getattr(clip, "text", clip))
    side, length = model.image_size, tokenizer_settings(model.model_cfg, model.source)["context_length"]
    batch = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    text_shape = {0: batch, 1: torch.export.Dim("length", min=2, max=length)} if shorten else {0: batch}
    _export(_Image(clip), torch.zeros(2, 3, side, side), {0: batch}, folder / "image.onnx", model.source)
    tokens = model.tokenizer(["a mug", "a star on a table"])
    _export(_Text(clip), tokens, text_shape, folder / "text.onnx", model.source)
    return shorten


def _export(tower: nn.Module, example: Tensor, shape: dict[int, Any], file: Path, source: str) -> None:
    size = sum(parameter.nbytes for parameter in tower.parameters())
    with _quiet(), torch.no_grad():
        try:
            torch.onnx.export(
                tower, (example,), file, input_names=["input"], output_names=["output"], dynamic_shapes=(shape,),
                dynamo=True, external_data=size > _LARGEST_FILE, verbose=False,
            )  # fmt: skip
        except Exception as error:
            raise ModelError(f"PyTorch cannot write the {file.stem} tower of {source} as ONNX: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of exporters about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _quantize(folder: Path) -> None:
    quantization = runtime("onnxruntime.quantization")
    for name in ("image.onnx", "text.onnx"):
        whole = (folder / name).rename(folder / f"whole-{name}")
        with _quiet():
            quantization.quantize_dynamic(
                whole, folder / name, op_types_to_quantize=["MatMul", "Gemm", "Gather"], per_channel=True,
                weight_type=quantization.QuantType.QInt8, use_external_data_format=whole.stat().st_size > _LARGEST_FILE,
            )  # fmt: skip
        whole.unlink()


def _preprocess_cfg(model: Model) -> dict[str, Any]:
    names = {field.name for field in fields(PreprocessCfg)}
    given = {key: value for key, value in model.preprocess_cfg.items() if key in names and value is not None}
    return asdict(PreprocessCfg(**given))


def _least_cosines(model: Model, onnx: OnnxModel) -> dict[str, float]:
    """The least cosine of an image and of a text to the same one by PyTorch."""
    images, texts = probe_images(model.image_size, _CHECKED), probe_texts()
    return {
        "image": _least(model.encode(images), onnx.encode_images(images)),
        "text": _least(model.encode(texts, kind="text"), onnx.encode_texts(texts)),
    }


def _least(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    return float((expected * actual).sum(axis=1, dtype=np.float64).min())
