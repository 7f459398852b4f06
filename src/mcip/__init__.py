"""CLIP models that are good at image-to-image retrieval and keep their text.

* The stages, one function per command: `improve` (the whole way), `embed`, `mine`, `tune`, `align`, `adapt`, `isoclip`,
  `interpolate`, `export`, `push`, `evaluate`, `report`, `index`, `search`, `duplicates`, `serve`, `mcp` (search for
  other programs), `plan` (what a run takes), `doctor` (what an installation lacks), and `demo`, which runs the method
  on generated images.
* Models: `load`, `create` and `save`; they give and take a `Model`.
* Data: `read_table` gives a `Table`; `Pixels` loads its images as batches of a model's input.
* Indexes: `open_index` gives an `Index`.
* For training code of your own: `losses`, `metrics`, `objectives` (what is trained) and `training` (the loop `fit`, its
  `FitSettings`, and `EpochOrder`, the rows of each step).

Everything is imported at first use, so that `import mcip` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcip import losses, metrics, training
    from mcip.data import Pixels, Table, read_table
    from mcip.models import Model, create, load, save
    from mcip.retrieval.index import Index, open_index
    from mcip.stages.adapt import adapt
    from mcip.stages.align import align
    from mcip.stages.doctor import doctor
    from mcip.stages.duplicates import duplicates
    from mcip.stages.embed import embed
    from mcip.stages.evaluate import evaluate
    from mcip.stages.export import export
    from mcip.stages.improve import improve
    from mcip.stages.index import index
    from mcip.stages.interpolate import interpolate
    from mcip.stages.isoclip import isoclip
    from mcip.stages.mcp import mcp
    from mcip.stages.mine import mine
    from mcip.stages.plan import plan
    from mcip.stages.push import push
    from mcip.stages.report import report
    from mcip.stages.search import search
    from mcip.stages.serve import serve
    from mcip.stages.tune import tune
    from mcip.toyshop.demo import demo
    from mcip.training import objectives

    __version__: str

__all__ = [
    "Index",
    "Model",
    "Pixels",
    "Table",
    "__version__",
    "adapt",
    "align",
    "create",
    "demo",
    "doctor",
    "duplicates",
    "embed",
    "evaluate",
    "export",
    "improve",
    "index",
    "interpolate",
    "isoclip",
    "load",
    "losses",
    "mcp",
    "metrics",
    "mine",
    "objectives",
    "open_index",
    "plan",
    "push",
    "read_table",
    "report",
    "save",
    "search",
    "serve",
    "training",
    "tune",
]

_MODULES = {"losses": "losses", "metrics": "metrics", "objectives": "training.objectives", "training": "training"}
# Where the other public names are that are not stages.
_HOMES = {
    "Index": "retrieval.index",
    "Model": "models",
    "Pixels": "data",
    "Table": "data",
    "create": "models",
    "demo": "toyshop.demo",
    "load": "models",
    "open_index": "retrieval.index",
    "read_table": "data",
    "save": "models",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name in _MODULES:
        value = importlib.import_module(f"mcip.{_MODULES[name]}")
    elif name == "__version__":
        value = importlib.metadata.version("mcip")
    elif name in __all__:
        value = getattr(importlib.import_module(f"mcip.{_HOMES.get(name, f'stages.{name}')}"), name)
    else:
        raise AttributeError(f"module 'mcip' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
