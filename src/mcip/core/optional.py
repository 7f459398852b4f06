"""What the extras of the package are for, and modules that come with them, imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

from mcip.core.errors import ConfigError

# What each extra is for. Its packages and their versions stand in the package's metadata.
EXTRAS: Final = {
    "search": "index and search images: mcip index, search, duplicates",
    "serve": "search on a page and by HTTP: mcip serve",
    "mcp": "search by the Model Context Protocol: mcip mcp",
    "fast": "decode JPEG files in less time",
    "fp8": "train in 8 bits: mcip tune --fp8, --optimizer adamw8bit",
    "photos": "read HEIC, JPEG XL and camera RAW files, and watch folders",
    "ray": "index on a cluster",
    "milvus": "keep an index's vectors in Milvus",
    "siglip": "read text with SigLIP's tokenizer",
    "onnx": "export to ONNX and run such models",
    "hub": "export to transformers and sentence-transformers",
    "mteb": "run mteb's tasks with a model",
    "benchmarks": "read benchmarks' MATLAB files",
}
_PACKAGES = {
    "lance": ("pylance", "search"),
    "rabitqlib": ("rabitqlib", "search"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "onnxruntime.quantization": ("onnx", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
    "transformers": ("transformers", "hub"),
    "sentence_transformers": ("sentence-transformers", "hub"),
    "torchao.float8": ("torchao", "fp8"),
    "torchao.optim": ("torchao", "fp8"),
    "watchfiles": ("watchfiles", "photos"),
    "ray": ("ray", "ray"),
    "pymilvus": ("pymilvus", "milvus"),
    "ray.data": ("ray[data]", "ray"),
}


def module(name: str) -> Any:
    """Import one of them: "lance", "rabitqlib", "onnxruntime", "ray" and others.

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package, extra = _PACKAGES[name]
        raise ConfigError(
            f"The package {package} is not installed ({error}). Install the extra {extra} ({EXTRAS[extra]}): "
            f"pip install 'mcip[{extra}]'"
        ) from error


def module_or_none(name: str) -> Any:
    """Import a module without which something is slower, or a format is not read; None where it is not installed.

    Raises:
        ConfigError: It is installed, but cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        broken: Exception = error
    except Exception as error:  # what was built for other versions raises what it likes
        broken = error
    why = " ".join(str(broken).split())
    raise ConfigError(
        f"{name} is installed, but cannot be imported ({why}). Install it again, in a version that fits the other "
        "packages, or remove it."
    ) from broken


def installed(extra: str) -> bool:
    """Whether the packages of an extra, "search" or "ray", are there."""
    modules = [name for name, (_, other) in _PACKAGES.items() if other == extra]
    return all(importlib.util.find_spec(name.partition(".")[0]) is not None for name in modules)
