"""Configurations for the models of the paper and newer ones: `mcip plan NAME` says what one takes."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

from mcip.core.errors import ConfigError


def recipe_names() -> list[str]:
    """The names of the recipes in the package."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_recipe(name: str) -> dict[str, dict[str, Any]]:
    """The parameters that a recipe gives to each stage: `{"tune": {"lr": ...}, ...}`.

    Raises:
        ConfigError: There is no such recipe.
    """
    if name not in recipe_names():
        raise ConfigError(f"There is no recipe {name!r}. There are: {', '.join(recipe_names())}.")
    content: dict[str, dict[str, Any]] = yaml.safe_load(resources.files(__name__).joinpath(f"{name}.yaml").read_text())
    return content
