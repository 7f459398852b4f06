"""Modules that come with the extras `mcip[search]`, `mcip[onnx]` and `mcip[ray]`, imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mcip.core.errors import ConfigError

_PACKAGES = {
    "lance": ("pylance", "search"),
    "usearch.index": ("usearch", "search"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "onnxruntime.quantization": ("onnx", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
    "ray": ("ray", "ray"),
    "ray.data": ("ray[data]", "ray"),
}
_PURPOSES = {"onnx": "ONNX", "ray": "A cluster", "search": "Searching"}


def module(name: str) -> Any:
    """Import one of them: "lance", "usearch.index", "onnxruntime", "ray" and others.

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package, extra = _PACKAGES[name]
        purpose = _PURPOSES[extra]
        raise ConfigError(
            f"{purpose} needs the package {package}, which is not installed ({error}): pip install 'mcip[{extra}]'."
        ) from error


def installed() -> bool:
    """Whether the extra is there."""
    return all(importlib.util.find_spec(name.partition(".")[0]) for name in _PACKAGES)
