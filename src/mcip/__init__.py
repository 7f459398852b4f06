"""CLIP models that are good at image-to-image retrieval and keep their text.

Everything is imported at first use, so that `import mcip` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcip import losses, metrics
    from mcip.align import align
    from mcip.data import read_table
    from mcip.demo import demo
    from mcip.duplicates import duplicates
    from mcip.embed import embed
    from mcip.evaluate import evaluate
    from mcip.export import export
    from mcip.index import index
    from mcip.interpolate import interpolate
    from mcip.mine import mine
    from mcip.models import create, load, save
    from mcip.report import report
    from mcip.search import search
    from mcip.searching.database import open_database
    from mcip.serve import serve
    from mcip.tune import tune

    __version__: str

__all__ = [
    "__version__",
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
    "open_database",
    "read_table",
    "report",
    "save",
    "search",
    "serve",
    "tune",
]

_STAGES = (
    "align", "demo", "duplicates", "embed", "evaluate", "export", "index", "interpolate", "mine", "report",
    "search", "serve", "tune",
)  # fmt: skip
_FUNCTIONS = {
    **{stage: stage for stage in _STAGES},
    "create": "models",
    "load": "models",
    "open_database": "searching.database",
    "read_table": "data",
    "save": "models",
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        value = getattr(importlib.import_module(f"mcip.{_FUNCTIONS[name]}"), name)
    elif name in ("losses", "metrics"):
        return importlib.import_module(f"mcip.{name}")
    elif name == "__version__":
        value = importlib.metadata.version("mcip")
    else:
        raise AttributeError(f"module 'mcip' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # The import of the module `mcip.embed` would put it in the place of the function `mcip.embed`.
        if not (name in _STAGES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
