"""Models: loaded by name, from a folder or with weights put on top; saved as a folder that open_clip loads itself.

Everything is imported at first use: an ONNX model needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcip.core.lazy import lazy_names

if TYPE_CHECKING:
    from mcip.models.hf_export import SavedTransformers
    from mcip.models.loading import create, from_config, load
    from mcip.models.model import Model
    from mcip.models.onnx_model import OnnxModel, SavedOnnx
    from mcip.models.saved import SavedModel, SavedWeights, save

__all__ = [
    "Model",
    "OnnxModel",
    "SavedModel",
    "SavedOnnx",
    "SavedTransformers",
    "SavedWeights",
    "create",
    "from_config",
    "load",
    "save",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Model": "model",
        "OnnxModel": "onnx_model",
        "SavedModel": "saved",
        "SavedOnnx": "onnx_model",
        "SavedTransformers": "hf_export",
        "SavedWeights": "saved",
        "create": "loading",
        "from_config": "loading",
        "load": "loading",
        "save": "saved",
    },
)
