"""Files from the Jinja2 templates of a package: text is escaped in HTML, and a name that is not there is an error."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render(package: str, template: str, **context: Any) -> str:
    """Fill in a template.

    Args:
        package: The package whose folder `templates` holds it; it can extend the templates of `mcip.reporting`.
        template: Its file name.
        context: The names that it uses.

    Returns:
        HTML, or Markdown where the template is called *.md.j2. `page.html.j2` makes HTML a self-contained file: it
        loads nothing, runs no script, and follows light and dark mode.
    """
    return _environment(package).get_template(template).render(context)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("mcip.reporting")]),
        autoescape=lambda name: not (name or "").endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["version"] = importlib.metadata.version("mcip")
    environment.filters["minus"] = lambda text: text.replace("-", "\N{MINUS SIGN}")
    return environment
