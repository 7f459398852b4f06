"""The errors a user can meet: each message says what was wrong, where, and what to do."""

from __future__ import annotations


class McipError(Exception):
    """Base of all errors that `mcip` raises on purpose; the command prints them without a traceback."""


class DataError(McipError):
    """A table, an image or a caption source cannot be used as it is."""


class UnreadableImage(DataError):  # noqa: N818 - a fact about one row, counted and listed rather than fatal
    """One image could not be decoded; the message is the reason."""


class ModelError(McipError):
    """A model, its weights or its tokenizer cannot be used as asked."""


class ArtefactError(McipError):
    """An artefact on disk does not fit what is asked of it."""


class EngineError(McipError):
    """The engine that holds an index's vectors does not answer, or does not hold what it should."""


class ConfigError(McipError):
    """A parameter or a configuration key is wrong."""


class ProcessError(McipError):
    """Another process of the same run has failed or died."""
