"""Modules that come with the extra `mcip[search]`, imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mcip.errors import ConfigError

_PACKAGES = {"lance": "pylance", "usearch.index": "usearch"}


def module(name: str) -> Any:
    """Import "lance" or "usearch.index".

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"Searching needs the package {_PACKAGES[name]}, which is not installed ({error}): "
            "pip install 'mcip[search]'."
        ) from error


def installed() -> bool:
    """Whether the extra is there."""
    return all(importlib.util.find_spec(name.partition(".")[0]) for name in _PACKAGES)
