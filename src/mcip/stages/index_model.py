"""Which model embeds the images of an index: by PyTorch, or by ONNX Runtime without importing PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mcip.core.choices import Backend
from mcip.core.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from mcip.models import Model, OnnxModel
    from mcip.retrieval.embedder import AnyModel
    from mcip.retrieval.table import IndexTable
    from mcip.stages.index_update import Update
    from mcip.stages.inputs import ModelInput

_TOYSHOP: Final = "toyshop"


def check_backend(backend: Backend, device: str, precision: str, ray: str | None) -> None:
    """Refuse what ONNX Runtime does not do here, before anything is read.

    Raises:
        ConfigError: Another parameter needs PyTorch.
    """
    if backend == "onnx" and not _may_be_onnx(device, precision, ray):
        raise ConfigError("ONNX Runtime embeds in fp32 on this machine's CPU: leave device, precision and ray out.")


def load_model(table: IndexTable | None, update: Update) -> AnyModel:
    """The model that embeds, checked to be one whose vectors may stand beside those of the index.

    "auto" takes what embedded last time; for a new index ONNX Runtime if the model is an ONNX model, else PyTorch.

    Raises:
        ConfigError: No model is given for a new index, or its vectors would differ from those of the index by more than
            what `mcip export` allows of an ONNX model without --quantize.
        ModelError: It cannot be loaded.
    """
    from mcip.models import OnnxModel

    if table is None and update.model is None:
        raise ConfigError(f"There is no index at {update.uri} yet: say which model shall make it, with --model.")
    model = update.model
    loaded = model if model is not None and not isinstance(model, str | os.PathLike) else None
    if loaded is None:
        loaded = _onnx(table, update) or _pytorch(table, model, update.device)
    if table is not None:
        _check_beside(table, "torch" if not isinstance(loaded, OnnxModel) else loaded.backend)
    if loaded.source == _TOYSHOP:
        from mcip.stages.index_update import note

        note(
            "The model `toyshop` knows drawn toys only: on photographs its results are arbitrary. "
            "Index them with a model such as ViT-B-32/openai."
        )
    return loaded


def recorded_name(model: AnyModel, given: ModelInput | OnnxModel | None) -> str:
    """The name by which an index finds its model, from other folders too."""
    from mcip.models import OnnxModel

    if not isinstance(model, OnnxModel):
        return str(model.folder.absolute()) if model.folder is not None else model.source
    name = os.fspath(given) if isinstance(given, str | os.PathLike) else str(model.folder)
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def _may_be_onnx(device: str, precision: str, ray: str | None) -> bool:
    return device in ("auto", "cpu") and precision in ("auto", "fp32") and ray is None


def _onnx(table: IndexTable | None, update: Update) -> OnnxModel | None:
    """The ONNX model that embeds; None where PyTorch does."""
    from mcip.models.onnx_model import OnnxModel, is_onnx
    from mcip.retrieval.encoder import onnx_places

    given = Path(update.model) if isinstance(update.model, str | os.PathLike) else None
    is_given = given is not None and is_onnx(given)
    last = table is not None and table.identity.backend != "torch"
    allowed = _may_be_onnx(update.device, update.options.precision, update.ray)
    if update.backend == "torch" or (update.backend == "auto" and not ((is_given or last) and allowed)):
        return None
    name = table.identity.model if table is not None else os.fspath(given or "")
    places = onnx_places(update.uri, given, name)
    found = next((OnnxModel(place) for place in places if is_onnx(place)), None)
    if found is not None:
        return found
    if update.backend == "onnx":
        raise ModelError(
            f"There is no ONNX model for {update.uri}: `mcip export {given or name} {places[-1]} --format onnx` makes "
            "one."
        )
    from mcip.stages.index_update import note

    note(f"The ONNX model by which {update.uri} was embedded is gone: PyTorch embeds what is new.")
    return None


def _pytorch(table: IndexTable | None, model: ModelInput | OnnxModel | None, device: str) -> Model:
    from mcip import models
    from mcip.core.device import pick_device
    from mcip.models.onnx_model import exported_model

    name = os.fspath(model) if isinstance(model, str | os.PathLike) else table.identity.model if table else ""
    return models.load(exported_model(name), device=str(pick_device(device)))


def _check_beside(table: IndexTable, backend: str) -> None:
    """Vectors by PyTorch and by an ONNX model without quantization differ by less than export allows, others do not."""
    before = table.identity.backend
    if before == backend or {before, backend} <= {"torch", "onnx"}:
        return
    name, _, quantized = before.partition("-")
    raise ConfigError(
        f"{table.uri} was embedded by {before}, and {backend} would embed what is new: their vectors differ by more "
        f"than the 0.0001 of cosine that may stand in one index. Go on with --backend {name}"
        f"{f' and an ONNX model of --quantize {quantized}' if quantized else ''}, or choose another --db."
    )
