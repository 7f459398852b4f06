"""Export a model to a file or folder that other people's code loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mcip.core.errors import ConfigError
from mcip.core.processes import check_one_process
from mcip.stages.inputs import ModelInput

if TYPE_CHECKING:
    from mcip.models import SavedModel, SavedWeights

# What files of torch.save are called.
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# Names of files, which a folder should not have.
_FILE_SUFFIXES = (*_SUFFIXES, ".safetensors", ".onnx", ".json", ".npz", ".pkl")


def export(
    model: ModelInput, out: Path, format: Literal["pth", "open_clip"] = "pth", weights: Path | None = None
) -> SavedModel | SavedWeights:
    """Write a model in the form that other code loads.

    Args:
        model: What `mcip.load` takes.
        out: The file to write for "pth", named *.pth, *.pt, *.bin or *.ckpt; the folder for "open_clip".
        format: "pth": a plain state dict, which the model of the same open_clip name takes by
            `load_state_dict(torch.load(out, weights_only=True), strict=True)`; its configuration (activation and
            preprocessing) is written beside it as `<out>.json`. "open_clip": a folder that
            `open_clip.create_model_and_transforms("local-dir:<out>")` loads.
        weights: A `.pth` or `.safetensors` state dict to put on top first, every key and shape checked. With
            "open_clip" it becomes a folder that every command takes as its model.

    Returns:
        What was written; it stands for its path.

    Raises:
        ConfigError: `out` is named as another kind of file.
        ModelError: The model cannot be loaded, or `out` is in the way.
        ArtefactError: The disk is full.

    Example:
        >>> import mcip, pathlib, tempfile
        >>> saved = mcip.export("toyshop", pathlib.Path(tempfile.mkdtemp()) / "toyshop.pth")
        >>> saved.load().embed_dim
        256
    """
    check_one_process()
    out = Path(out)
    _check_name(out, format)

    from mcip.models import SavedModel, SavedWeights, load, save
    from mcip.models.saved import write_state_dict

    loaded = load(model, weights)
    if format == "open_clip":
        made_by = {"exported_from": loaded.source, "weights": None if weights is None else str(weights)}
        return SavedModel(save(loaded, out, made_by))
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
    elif format == "open_clip":
        if suffix in _FILE_SUFFIXES:
            raise ConfigError(
                f"{out} is named as a {suffix} file, but format open_clip writes a folder: name it {out.stem}, "
                "or use format pth for a file."
            )
    else:
        raise ConfigError(f"format is {format!r}: it is pth or open_clip.")
