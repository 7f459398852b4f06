"""What `mcip tune` refuses before it reads anything: parameters that do not fit together."""

from __future__ import annotations

from mcip.core.choices import Compile, Method, Parallel
from mcip.core.errors import ConfigError
from mcip.stages.inputs import CaptionsInput


def check_method(
    method: Method, captions: CaptionsInput | None, caption_weight: float, center_sample: float, parallel: Parallel
) -> None:
    """Refuse a method without what it needs, or with what it has no use for, and shares out of range.

    Raises:
        ConfigError: As it says.
    """
    if method == "mcip" and captions is None:
        raise ConfigError("MCIP needs mined captions: run `mcip mine` and pass its folder as --captions.")
    if method == "gpr-ft" and captions is not None:
        raise ConfigError("GPR-FT uses no captions: leave --captions out, or use --method mcip.")
    if not 0 < caption_weight < 1:
        raise ConfigError(f"caption_weight is {caption_weight}: it is a share between 0 and 1.")
    if not 0 < center_sample <= 1:
        raise ConfigError(f"center_sample is {center_sample}: it is a share of the classes, above 0 and up to 1.")


def check_options(keep: float, lora: int, ema: float, fp8: bool, parallel: Parallel) -> None:
    """Refuse options that do not go with each other.

    Raises:
        ConfigError: As it says.
    """
    if not keep >= 0:
        raise ConfigError(f"keep is {keep}: it is a weight, 0 or more.")
    if lora and fp8:
        raise ConfigError("lora cannot go with fp8 yet: leave one of them out.")
    for name, value in {"keep": keep, "lora": lora, "ema": ema, "fp8": fp8}.items():
        if value and parallel == "fsdp":
            raise ConfigError(f"{name} cannot go with --parallel fsdp yet: use --parallel ddp, or leave it out.")


def check_graphs(compile: Compile, accumulate: int, several: bool) -> None:
    """CUDA graphs write gradients to the same place in each call, so that nothing can add them up or sum them.

    Raises:
        ConfigError: `compile` asks for them, and something would have to.
    """
    if compile == "graphs" and (accumulate > 1 or several):
        option = "--accumulate" if accumulate > 1 else "several processes"
        raise ConfigError(f"--compile graphs cannot go with {option}: use --compile on.")
