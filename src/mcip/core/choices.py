"""The named choices that parameters of several stages take; importing them costs nothing."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from mcip.core.errors import ConfigError

# "auto" is bf16 on a GPU that has it, fp32 elsewhere.
Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
# How images become a model's input: its own transform, or the paper's (squash to 1.125 S, crop S).
TransformName: TypeAlias = Literal["model", "paper"]
# How image files become a transform's pixels: as open_clip does, to the bit, or faster and almost the same.
Decode: TypeAlias = Literal["exact", "fast"]
# What an image tower is tuned by: class labels, or class labels and mined captions.
Method: TypeAlias = Literal["gpr-ft", "mcip"]
# Where the class centers of a class loss start.
CenterInit: TypeAlias = Literal["random", "class-means"]
# How several processes train a tower: each with the whole of it (DDP), or with a part of each weight (FSDP2).
Parallel: TypeAlias = Literal["ddp", "fsdp"]
# What embeds queries: ONNX Runtime, PyTorch, or the first where there is an ONNX model.
Backend: TypeAlias = Literal["auto", "onnx", "torch"]
# How the weights of an ONNX model are stored.
Quantize: TypeAlias = Literal["none", "int8"]
# What pairs of images and captions are trained with; "auto" is what the model was made with.
PairLoss: TypeAlias = Literal["auto", "infonce", "sigmoid"]
# AdamW with moments in float32, or in 8 bits by torchao.
OptimizerName: TypeAlias = Literal["adamw", "adamw8bit"]
# "auto" compiles the image tower on CUDA, where the run is long enough to pay for it; "graphs" adds CUDA graphs.
Compile: TypeAlias = Literal["auto", "on", "graphs", "off"]
# How the parts of a query become one score; see `mcip.retrieval.fusion`.
Fusion: TypeAlias = Literal["sum", "product", "basic"]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse a value that is none of the choices.

    Args:
        name: What the value is of.
        value: The value.
        choices: A `Literal`, such as those of this module.

    Raises:
        ConfigError: As it says.

    Example:
        >>> check_choice("decode", "fast", Decode)
    """
    if value not in get_args(choices):
        raise ConfigError(f"{name} is {value!r}: it is one of {', '.join(get_args(choices))}.")
