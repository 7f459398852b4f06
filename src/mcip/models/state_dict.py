"""Weights on disk: read without running code from the file, put into a model with every key and shape checked."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mcip.core.errors import ModelError

# How many keys an error message lists before it only counts.
_SHOWN = 5
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


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or one of `torch.save`, on the CPU.

    A dict that wraps it under "state_dict", and the "module." that data-parallel training puts before every key, are
    taken away.

    Raises:
        ModelError: There is no such file, it is cut off or damaged, or it holds anything but a dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds {_kind(content)}, but a state dict (names to tensors) is needed.")
    wrong = [f"{key!r} ({_kind(value)})" for key, value in content.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ModelError(
            f"{path} is not a plain state dict: {_some(wrong)} "
            "are not tensors. Save model.state_dict() alone, without the optimiser and other training state."
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
    own = model.state_dict()
    state = {key: _as_scalar(value, own.get(key)) for key, value in state.items()}
    problems = []
    if other := [
        f"{key} is {_shape(state[key])} in the file and {_shape(own[key])} in the model"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]:
        problems.append(f"of other shape: {_some(other, '; ')}")
    if missing := [key for key in own if key not in state]:
        problems.append(f"missing: {_some(missing)}")
    if unknown := [key for key in state if key not in own]:
        problems.append(f"not in the model: {_some(unknown)}")
    if problems:
        raise ModelError(
            f"The weights {origin} do not fit {target}. Tensors " + ". Tensors ".join(problems) + ". "
            "Name the architecture these weights were trained with."
        )
    model.load_state_dict(state, strict=True)


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict as contiguous CPU tensors, none sharing memory with another, that any writer takes."""
    seen: set[int] = set()
    plain = {}
    for key, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if tensor.data_ptr() in seen or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.data_ptr())
        plain[key] = tensor
    return plain


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise ModelError(
                f"{path} was refused: it holds more than tensors, and reading it could run code from the file. "
                f"If you trust its origin, load it yourself and save model.state_dict() alone. ({_first_line(error)})"
            ) from error
        raise _damaged(path, error) from error
    except Exception as error:  # a damaged pickle makes its reader fail in any way
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} ({path.stat().st_size:,} bytes) cannot be read: it is cut off, damaged, or not a weights file. "
        f"Fetch or make it again. ({_first_line(error)})"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _as_scalar(value: Tensor, own: Tensor | None) -> Tensor:
    if own is not None and {own.ndim, value.ndim} == {0, 1} and value.numel() == 1:
        return value.reshape(own.shape)
    return value


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _some(items: Iterable[str], separator: str = ", ") -> str:
    items = list(items)
    rest = len(items) - _SHOWN
    return separator.join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
