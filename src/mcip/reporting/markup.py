"""HTML in which all text is escaped by construction."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

# The elements that have no end tag.
_VOID = {"img", "meta", "source", "br"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child: TypeAlias = "str | list[Html] | None"


def tag(name: str, /, *children: Child, **attributes: str | int | None) -> Html:
    """Make an element.

    Args:
        name: Of the element.
        children: Strings are escaped unless they are `Html`; None is left out.
        attributes: Values are escaped, None is left out. A trailing underscore of a name is dropped, others become
            hyphens.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Put children one after the other, escaped as in `tag`."""
    return Html("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, list):
        return "".join(child)
    return child if isinstance(child, Html) else escape(child)
