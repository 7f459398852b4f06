"""What the extras of the package are for, and modules that come with them, imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mcip.core.errors import ConfigError

# What each extra is for.
EXTRAS = {
    "search": "Indexing and searching images",
    "serve": "Serving an index over HTTP and as a page",
    "mcp": "Letting programs search by the Model Context Protocol",
    "onnx": "Search without PyTorch, by ONNX Runtime",
    "photos": "HEIC, HEIF, JPEG XL and camera RAW, and watching folders",
    "ray": "Indexing on a cluster",
    "milvus": "An index whose vectors are in Milvus",
    "siglip": "Texts of SigLIP models",
    "hub": "Models of transformers and sentence-transformers, and the Hugging Face hub",
    "benchmarks": "Benchmarks whose labels are MATLAB files",
}
_PACKAGES = {
    "lance": ("pylance", "search"),
    "rabitqlib": ("rabitqlib", "search"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "onnxruntime.quantization": ("onnx", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
    "transformers": ("transformers", "hub"),
    "sentence_transformers": ("sentence-transformers", "hub"),
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
            f"{EXTRAS[extra]} needs the package {package}, which is not installed ({error}): "
            f"pip install 'mcip[{extra}]'."
        ) from error


def installed(extra: str) -> bool:
    """Whether the packages of an extra, "search" or "ray", are there."""
    modules = [name for name, (_, other) in _PACKAGES.items() if other == extra]
    return all(importlib.util.find_spec(name.partition(".")[0]) is not None for name in modules)
