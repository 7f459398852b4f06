"""Decoding without Pillow's warnings, in one thread and without a change to the filters that all threads share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from PIL import IcoImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

_quiet: ContextVar[bool] = ContextVar("_quiet", default=False)


@contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Drop the warnings that Pillow gives in this context (thread or task): about size and about damaged metadata.

    `warnings.catch_warnings` is not used: until Python 3.14 it replaces the filters of the whole process, and leaves
    wrong ones behind when several threads use it at a time.
    """
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


class _ContextWarnings:
    """The module `warnings` as Pillow sees it: the same, except that `warn` does nothing in a quiet context."""

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, **options: Any) -> None:
        if not _quiet.get():
            warnings.warn(message, category, stacklevel + 1, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


# Warnings outside a quiet context are given as ever, from the same line of Pillow.
for _module in (Image, IcoImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin):
    vars(_module)["warnings"] = _ContextWarnings()
