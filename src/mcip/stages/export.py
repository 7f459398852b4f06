"""Export a model to a file or folder that other people's code loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mcip.core.choices import Quantize
from mcip.core.errors import ConfigError
from mcip.core.parameters import check_choices
from mcip.core.processes import check_one_process
from mcip.stages.inputs import ModelInput

if TYPE_CHECKING:
    from mcip.models import SavedModel, SavedOnnx, SavedTransformers, SavedWeights

# What files of torch.save are called.
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# Names of files, which a folder should not have.
_FILE_SUFFIXES = (*_SUFFIXES, ".safetensors", ".onnx", ".json", ".npz", ".pkl")

_FORMS = {
    "pth": "a plain state dict", "open_clip": "a folder of open_clip", "onnx": "an ONNX model",
    "hf": "a model of transformers", "sentence-transformers": "a model of sentence-transformers",
}  # fmt: skip


def export(
    model: ModelInput,
    out: Path,
    format: Literal["pth", "open_clip", "onnx", "hf", "sentence-transformers"] = "pth",
    weights: Path | None = None,
    quantize: Quantize = "none",
) -> SavedModel | SavedOnnx | SavedTransformers | SavedWeights:
    """Write a model in the form that other code loads.

    Args:
        model: What `mcip.load` takes.
        out: The file to write for "pth", named `*.pth`, `*.pt`, `*.bin` or `*.ckpt`; the folder for the others.
        format: "pth": a plain state dict, which the model of the same open_clip name takes by
            `load_state_dict(torch.load(out, weights_only=True), strict=True)`; its configuration (activation and
            preprocessing) is written beside it as `<out>.json`. "open_clip": a folder that
            `open_clip.create_model_and_transforms("local-dir:<out>")` loads. "onnx": a folder with `image.onnx` and
            `text.onnx`, by which an index is searched without PyTorch, of a model with CLIP's own tokenizer. They are
            written only if their embeddings of 64 images and 64 texts have a cosine of at least 0.9999 (0.99 for int8)
            to those of the model. "hf": a folder
            that `AutoModel` and `AutoProcessor` of `transformers` load: CLIP with vision transformers (OpenAI, LAION,
            DataComp, DFN, MetaCLIP), SigLIP and SigLIP 2; another model is refused. "sentence-transformers": the same
            folder, which `SentenceTransformer(out)` loads too. Both are written only if each tower computes what ours
            does, to 1e-5.
        weights: A `.pth` or `.safetensors` state dict to put on top first, every key and shape checked. With
            "open_clip" it becomes a folder that every command takes as its model.
        quantize: "int8": store the weights of the matrix products of an ONNX model in 8 bits.

    Returns:
        What was written; it stands for its path.

    Raises:
        ConfigError: `out` is named as another kind of file, `quantize` is given for another format, or the extra
            `mcip[onnx]` or `mcip[hub]` is not installed.
        ModelError: The model cannot be loaded, `out` is in the way, `transformers` has no such model, the embeddings
            of what is written differ, or the model carries a matrix of `mcip adapt`, which no other code would apply.
        ArtefactError: The disk is full.

    Example:
        >>> import mcip, pathlib, tempfile
        >>> saved = mcip.export("toyshop", pathlib.Path(tempfile.mkdtemp()) / "toyshop.pth")
        >>> saved.load().embed_dim
        256
    """
    check_choices(export, locals())
    check_one_process()
    out = Path(out)
    _check_name(out, format)
    if quantize != "none" and format != "onnx":
        raise ConfigError(f"quantize {quantize} is for format onnx only, not for {format}.")

    from mcip.models import SavedModel, SavedOnnx, SavedTransformers, SavedWeights, load, save
    from mcip.models.adapter import refuse_carried
    from mcip.models.saved import write_state_dict

    loaded = load(model, weights)
    refuse_carried(loaded, _FORMS[format])
    if format == "open_clip":
        made_by = {"exported_from": loaded.source, "weights": None if weights is None else str(weights)}
        return SavedModel(save(loaded, out, made_by))
    if format == "onnx":
        from mcip.models.onnx_export import write_onnx

        return SavedOnnx(write_onnx(loaded, out, quantize))
    if format in ("hf", "sentence-transformers"):
        from mcip.models.hf_export import write_transformers

        return SavedTransformers(write_transformers(loaded, out, sentence=format == "sentence-transformers"))
    return SavedWeights(write_state_dict(loaded, out))


def _check_name(out: Path, format: str) -> None:
    suffix = out.suffix.lower()
    if format == "pth":
        if suffix and suffix not in _SUFFIXES:
            other = ' Format "open_clip" writes a folder with safetensors.' if suffix == ".safetensors" else ""
            raise ConfigError(
                f"{out} is named as a {suffix} file, but format pth writes a state dict of torch.save: name it "
                f"{out.with_suffix('.pth').name}.{other}"
            )
    elif format in _FORMS:
        # A folder beside an index is called INDEX.onnx.
        if suffix in _FILE_SUFFIXES and (format, suffix) != ("onnx", ".onnx"):
            raise ConfigError(
                f"{out} is named as a {suffix} file, but format {format} writes a folder: name it {out.stem}, "
                "or use format pth for a file."
            )
    else:
        raise ConfigError(f"format is {format!r}: it is one of {', '.join(_FORMS)}.")
