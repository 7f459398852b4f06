"""Weights on disk: read without running code from the file, put into a model with every key and shape checked."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mcip.core.errors import ModelError

# How many keys an error message lists before it only counts.
_SHOWN = 5
# Larger than every model of open_clip, whose largest has 20 GB.
MAX_BYTES: Final = 50_000_000_000
_ZIP: Final = b"PK\x03\x04"
# Before the tensors, an old file of torch.save holds a magic number, a version, facts of the machine, and the content.
_OLD_PICKLES: Final = 4
_UNSUPPORTED: Final = re.compile(r"Unsupported .*")
_RANDOM_FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_)


class SkipInit(TorchFunctionMode):
    """Inside this context, modules are made without drawing random weights, for those that a checkpoint fills."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _RANDOM_FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or one of `torch.save`, on the CPU.

    A dict that wraps it under "state_dict", and the "module." that data-parallel training puts before every key, are
    taken away.

    Raises:
        ModelError: There is no such file, it is cut off or damaged, or it holds anything but a dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}.")
    check_stated_sizes(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds {_kind(content)}, but a state dict (names to tensors) is needed.")
    wrong = [f"{key!r} ({_kind(value)})" for key, value in content.items() if not _is_named_tensor(key, value)]
    if wrong:
        raise ModelError(
            f"{path} is not a plain state dict: {_some(wrong)} "
            "are no named tensors. Save model.state_dict() alone, without the optimiser and other training state."
        )
    prefix = "module."
    if all(key.startswith(prefix) for key in content):
        return {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def load_strict(model: nn.Module, state: Mapping[str, Tensor], origin: str, target: str) -> None:
    """Put `state` into `model`: every key must be there, none may be left over, every shape must be the same.

    Args:
        model: What takes the weights; it keeps its dtypes and device.
        state: The weights. A scalar stored with shape (1,), as old checkpoints do, is taken for shape ().
        origin: What messages call the weights.
        target: What messages call the model.

    Raises:
        ModelError: Which keys or shapes differ.
    """
    expected = model.state_dict()
    state = {key: _as_scalar(value, expected.get(key)) for key, value in state.items()}
    if "logit_bias" in state and "logit_bias" not in expected:
        del state["logit_bias"]
        warnings.warn(
            f"{origin} holds a logit_bias, which {target} has no use for: it is left out. Embeddings do not depend on "
            "it. If the weights descend from a SigLIP model, name that model instead.",
            stacklevel=3,
        )
    problems = []
    if other := [
        f"{key} is {_shape(state[key])} in the file and {_shape(expected[key])} in the model"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]:
        problems.append(f"of other shape: {_some(other, '; ')}")
    if missing := [key for key in expected if key not in state]:
        problems.append(f"missing: {_some(missing)}")
    if unknown := [key for key in state if key not in expected]:
        problems.append(f"not in the model: {_some(unknown)}")
    if problems:
        raise ModelError(
            f"The weights {origin} do not fit {target}. Tensors " + ". Tensors ".join(problems) + ". "
            "Name the architecture these weights were trained with."
        )
    model.load_state_dict(state, strict=True)


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict as contiguous CPU tensors, none sharing memory with another, that any writer takes."""
    addresses: set[int] = set()
    plain = {}
    for key, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if tensor.data_ptr() in addresses or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        addresses.add(tensor.data_ptr())
        plain[key] = tensor
    return plain


def check_stated_sizes(path: Path) -> None:
    """Look at the sizes that a weights file states, before anything of it is read.

    Raises:
        ModelError: The file is larger than any model, it is a zip archive that states more bytes than it has, or it is
            one that was cut off.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ModelError(f"{path} was refused: it has {size:,} bytes; weights of more than {MAX_BYTES:,} are not read.")
    if not _is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            stated = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error
    # torch.save does not compress. NumPy may.
    limit = MAX_BYTES if path.suffix == ".npz" else size
    if stated > limit:
        raise ModelError(
            f"{path} was refused: its entries state {stated:,} bytes, but it has {size:,}. torch.save does not "
            "compress: it is no weights file, and unpacking it could fill the memory."
        )


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        if not _is_whole(path):
            raise _damaged(path, error) from error
        raise ModelError(
            f"{path} was refused: it holds more than tensors, and reading it could run code from the file. "
            f"If you trust its origin, load it yourself and save model.state_dict() alone. ({_reason(error)})"
        ) from error
    except Exception as error:  # a damaged pickle makes its reader fail in any way
        raise _damaged(path, error) from error


def _is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, or the first bytes of one."""
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    return start != b"" and _ZIP.startswith(start)


def _is_whole(path: Path) -> bool:
    """Whether the pickles of a file of torch.save are well formed, so that it is what they ask for that is refused."""
    try:
        if _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                _walk(archive.open(name))
        else:
            size = path.stat().st_size
            with path.open("rb") as file:
                for _ in range(_OLD_PICKLES):
                    _walk(file)
                    if file.tell() == size:
                        break
    except Exception:  # pickletools raises many kinds of errors
        return False
    return True


def _walk(file: IO[bytes]) -> None:
    for _ in pickletools.genops(file):
        pass


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} ({path.stat().st_size:,} bytes) cannot be read: it is cut off, damaged, or not a weights file. "
        f"Fetch or make it again. ({_reason(error)})"
    )


def _reason(error: Exception) -> str:
    """The line that says why; PyTorch begins with how to switch the check off."""
    text = str(error).strip() or type(error).__name__
    found = _UNSUPPORTED.search(text)
    return found[0].strip() if found else text.splitlines()[0]


def _as_scalar(value: Tensor, expected: Tensor | None) -> Tensor:
    if expected is not None and {expected.ndim, value.ndim} == {0, 1} and value.numel() == 1:
        return value.reshape(expected.shape)
    return value


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _is_named_tensor(key: object, value: object) -> bool:
    """Whether an entry is a name and a dense tensor with values, not a sparse, quantised or empty one."""
    plain = isinstance(value, Tensor) and value.layout is torch.strided and not (value.is_meta or value.is_quantized)
    return isinstance(key, str) and plain


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _some(items: Iterable[str], separator: str = ", ") -> str:
    items = list(items)
    rest = len(items) - _SHOWN
    return separator.join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
