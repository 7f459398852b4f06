"""A matrix that a model carries beside its weights, by which its image embeddings are multiplied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mcip.core.errors import ModelError
from mcip.core.files import atomic_write

ADAPTER_FILE: Final = "adapter.safetensors"
# What `open_clip_config.json` has where the folder of the model holds such a file; open_clip passes over it.
ADAPTER_KEY: Final = "adapter"
_KEY: Final = "weight"
# The buffer of the image tower that holds the matrix. It is not persistent: a state dict lacks it.
_BUFFER: Final = "mcip_adapter"


def carry(clip: nn.Module, matrix: Tensor | None) -> None:
    """Let a model of open_clip multiply its image embeddings by M; None ends it.

    The matrix moves to other devices with the model and is copied with it, but is in no state dict.
    """
    visual: Any = clip.visual
    if matrix is None and carried(clip) is None:
        return
    place = next(visual.parameters()).device
    visual.register_buffer(_BUFFER, None if matrix is None else matrix.detach().float().to(place), persistent=False)
    if not any(hook is _multiply for hook in visual._forward_hooks.values()):
        visual.register_forward_hook(_multiply)


def carried(clip: nn.Module) -> Tensor | None:
    """The matrix that a model of open_clip carries, float32 of shape (D, D), or None."""
    matrix: Tensor | None = getattr(clip.visual, _BUFFER, None)
    return matrix


def between(start: Tensor | None, end: Tensor | None, alpha: float) -> Tensor | None:
    """The matrix at the share `alpha` of the way from one to the other; None stands for the identity."""
    if start is None and end is None:
        return None
    known = end if end is not None else start
    assert known is not None
    identity = torch.eye(len(known), device=known.device)
    first = identity if start is None else start.to(known.device)
    return torch.lerp(first, identity if end is None else end, alpha)


def write_adapter(path: str | os.PathLike[str], matrix: Tensor) -> None:
    """Write a matrix, atomically."""
    with atomic_write(Path(path)) as temporary:
        save_file({_KEY: matrix.detach().float().cpu().contiguous()}, temporary)


def read_adapter(path: str | os.PathLike[str]) -> Tensor:
    """Read a matrix; float32 of shape (D, D).

    Raises:
        ModelError: There is no such file, it is damaged, or it does not hold a square matrix of finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no adapter {path}: `mcip adapt` writes it into its folder.")
    try:
        matrix = load_file(path)[_KEY].float()
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"{path} cannot be read as an adapter ({error}). Fetch or make it again.") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not bool(matrix.isfinite().all()):
        raise ModelError(f"{path} holds no square matrix of finite numbers, but one of shape {tuple(matrix.shape)}.")
    return matrix


def _multiply(visual: nn.Module, inputs: Any, output: Any) -> Any:
    """The forward hook of an image tower."""
    matrix: Tensor | None = getattr(visual, _BUFFER, None)
    if matrix is None:
        return output
    if isinstance(output, tuple):
        return (output[0] @ matrix.to(output[0].dtype), *output[1:])
    return output @ matrix.to(output.dtype)
