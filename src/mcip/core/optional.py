"""Modules that come with the extras `mcip[search]` and `mcip[ray]`, imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mcip.core.errors import ConfigError

_PACKAGES = {
    "lance": ("pylance", "search"),
    "usearch.index": ("usearch", "search"),
    "ray": ("ray", "ray"),
    "ray.data": ("ray[data]", "ray"),
}


def module(name: str) -> Any:
    """Import one of them: "lance", "usearch.index", "ray" or "ray.data".

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package, extra = _PACKAGES[name]
        purpose = "A cluster" if extra == "ray" else "Searching"
        raise ConfigError(
            f"{purpose} needs the package {package}, which is not installed ({error}): pip install 'mcip[{extra}]'."
        ) from error


def installed() -> bool:
    """Whether the extra is there."""
    return all(importlib.util.find_spec(name.partition(".")[0]) for name in _PACKAGES)
