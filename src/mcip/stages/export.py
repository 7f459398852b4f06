"""Export a model to a file or folder that other people's code loads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from mcip.core.artefacts import atomic_write, write_json
from mcip.core.errors import ModelError
from mcip.models import Model, load, save
from mcip.models.state_dict import plain_state_dict


def export(model: str, out: Path, format: Literal["pth", "open_clip"] = "pth", weights: Path | None = None) -> Path:
    """Write a model in the form that other code loads.

    Args:
        model: What `mcip.load` takes.
        out: The file to write for "pth", the folder for "open_clip".
        format: "pth": a plain state dict, which the model of the same open_clip name takes by
            `load_state_dict(torch.load(out, weights_only=True), strict=True)`; its configuration (activation and
            preprocessing) is written beside it as `<out>.json`. "open_clip": a folder that
            `open_clip.create_model_and_transforms("local-dir:<out>")` loads.
        weights: A `.pth` or `.safetensors` state dict to put on top first, every key and shape checked. With
            "open_clip" it becomes a folder that every command takes as its model.

    Returns:
        What was written.

    Raises:
        ModelError: The model cannot be loaded, or `out` is in the way.
        ArtefactError: The disk is full.
    """
    loaded = load(model, weights)
    if format == "open_clip":
        return save(loaded, out, made_by={"exported_from": model, "weights": None if weights is None else str(weights)})
    return write_state_dict(loaded, out)


def write_state_dict(model: Model, out: str | Path) -> Path:
    """Write the plain state dict of a model, whole or not at all, and its configuration beside it as `<out>.json`."""
    out = Path(out)
    if out.is_dir():
        raise ModelError(f"{out} is a folder; format pth writes a file: name it, as in {out / 'model.pth'}.")
    with atomic_write(out) as path, path.open("wb") as file:
        torch.save(plain_state_dict(model.clip), file)
    config = {"model_cfg": model.model_cfg, "preprocess_cfg": model.preprocess_cfg, "source": model.source}
    write_json(out.with_name(f"{out.name}.json"), config)
    return out
