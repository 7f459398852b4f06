"""Which device to run on, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

from mcip.core.choices import Precision, check_choice
from mcip.core.errors import ConfigError
from mcip.core.processes import of_environment


def pick_device(device: str) -> torch.device:
    """The device that `device` names; "auto" takes CUDA, then MPS, then the CPU.

    Of several processes on a machine each has the CUDA device of its number there.

    Raises:
        ConfigError: The device is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    found = of_environment()
    if device == "cuda" and found.several:
        device = f"cuda:{found.local_rank}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"The device {device!r} cannot be used here ({error}). Try --device auto.") from error
    return torch.device(device)


def pick_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The precision that `precision` names; "auto" takes bf16 on a CUDA device that has it, fp32 elsewhere.

    Raises:
        ConfigError: There is no such precision, or it is fp16 on the CPU, where it is not stable.
    """
    check_choice("precision", precision, Precision)
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("fp16 needs a CUDA device: use --precision bf16 or --precision fp32 on this one.")
    return precision


def computed_on(device: torch.device, precision: Precision) -> dict[str, str | int]:
    """What would make the same training come out differently elsewhere, for its manifest.

    Sums are in another order with another number of threads, vector unit, device or version of PyTorch, and trained
    weights follow from the first bit that differs.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "torch": torch.__version__, "device": device.type, "device_name": name, "threads": torch.get_num_threads(),
        "precision": pick_precision(precision, device), "processes": of_environment().count,
    }  # fmt: skip


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of `pick_precision(precision, device)`; it does nothing for fp32."""
    picked = pick_precision(precision, device)
    dtype = torch.float16 if picked == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=picked != "fp32")
