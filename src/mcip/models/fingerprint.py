"""The fingerprint of a model's weights, hashed again only after they were changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from mcip.models.carried import ADAPTER_FILE, carried


class Fingerprint:
    """A hash of weights, and in which state of them it was taken.

    Each tensor is known by its storage and by PyTorch's count of the changes in place. The weak references keep the
    address of a storage that is gone from being given to another.

    Attributes:
        digest: SHA-256 over the weights as float32 and the activation, in hexadecimal.
    """

    def __init__(self, clip: nn.Module, quick_gelu: bool) -> None:
        """Hash the weights of open_clip's model, and the matrix that it carries."""
        self._storages = [StorageWeakRef(tensor.untyped_storage()) for tensor in _tensors(clip)]
        self._state = _state(clip)
        self.digest = _digest(clip.state_dict(), clip, quick_gelu)

    def fits(self, clip: nn.Module) -> bool:
        """Whether no weight was replaced or changed in place since it was taken."""
        return self._state == _state(clip)


def image_tower_digest(clip: nn.Module, quick_gelu: bool) -> str:
    """SHA-256 over the weights of the image tower alone, and the matrix that it carries, in hexadecimal."""
    visual: Any = clip.visual
    return _digest(visual.state_dict(), clip, quick_gelu)


def _digest(weights: Mapping[str, Tensor], clip: nn.Module, quick_gelu: bool) -> str:
    """Hash some weights of a model, and the matrix that it carries."""
    digest, matrix = hashlib.sha256(b"quick_gelu" if quick_gelu else b""), carried(clip)
    for key, value in sorted({**weights, **({} if matrix is None else {ADAPTER_FILE: matrix})}.items()):
        array = value.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f"{key}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _tensors(clip: nn.Module) -> Iterator[Tensor]:
    # The dicts themselves: named_parameters() takes several times as long, which every query would pay.
    for module in clip.modules():
        for tensors in (module._parameters, module._buffers):
            yield from (tensor for tensor in tensors.values() if tensor is not None)


def _state(clip: nn.Module) -> list[tuple[int, int]]:
    return [(tensor.untyped_storage()._cdata, tensor._version) for tensor in _tensors(clip)]
