"""CLIP models that are good at image-to-image retrieval and keep their text.

Everything is imported at first use, so that `import mcip` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcip import losses, metrics
    from mcip.data import read_table
    from mcip.models import create, load, save
    from mcip.retrieval.index import open_index
    from mcip.stages.adapt import adapt
    from mcip.stages.align import align
    from mcip.stages.duplicates import duplicates
    from mcip.stages.embed import embed
    from mcip.stages.evaluate import evaluate
    from mcip.stages.export import export
    from mcip.stages.index import index
    from mcip.stages.interpolate import interpolate
    from mcip.stages.mine import mine
    from mcip.stages.report import report
    from mcip.stages.search import search
    from mcip.stages.serve import serve
    from mcip.stages.tune import tune
    from mcip.toyshop.demo import demo

    __version__: str

__all__ = [
    "__version__",
    "adapt",
    "align",
    "create",
    "demo",
    "duplicates",
    "embed",
    "evaluate",
    "export",
    "index",
    "interpolate",
    "load",
    "losses",
    "metrics",
    "mine",
    "open_index",
    "read_table",
    "report",
    "save",
    "search",
    "serve",
    "tune",
]

# Where the public names are that are not stages.
_MODULES = {
    "create": "models",
    "demo": "toyshop.demo",
    "load": "models",
    "open_index": "retrieval.index",
    "read_table": "data",
    "save": "models",
}


def __getattr__(name: str) -> Any:
    if name in ("losses", "metrics"):
        return importlib.import_module(f"mcip.{name}")
    if name == "__version__":
        value = importlib.metadata.version("mcip")
    elif name in __all__:
        value = getattr(importlib.import_module(f"mcip.{_MODULES.get(name, f'stages.{name}')}"), name)
    else:
        raise AttributeError(f"module 'mcip' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
