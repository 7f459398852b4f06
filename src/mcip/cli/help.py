"""What the help of a command shows: placeholders, types and defaults."""

from __future__ import annotations

import argparse
import inspect
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any

from jsonargparse import DefaultHelpFormatter


class HelpFormatter(DefaultHelpFormatter):
    """Shows the type of a value as its placeholder, and the default after the help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(shutil.get_terminal_size().columns, 110))  # type: ignore[no-untyped-call]

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
        # Names of models and files have hyphens: they stay whole, to be copied.
        return "\n\n".join(textwrap.fill(part, width, break_on_hyphens=False) for part in paragraphs)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # jsonargparse gives lists a second flag, `--model+`, where here a flag is repeated; and it puts options of its
        # own behind --print_config, as "\b[=flags]".
        flags = super()._format_action_invocation(action).split(", ")
        return ", ".join(flag for flag in flags if "+" not in flag).partition(" \b")[0]

    def _get_help_string(self, action: argparse.Action) -> str:
        known = action.default not in (None, argparse.SUPPRESS)
        return (action.help or "") + (" [%(default)s]" if known else "")


def positional(function: Callable[..., Any]) -> Iterator[str]:
    """The parameters of a stage that may be given without their names."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            yield name


def placeholders(function: Callable[..., Any]) -> str:
    """How the positional parameters stand in the usage line, as in "DB [QUERY ...] "."""
    shown = []
    for name in positional(function):
        parameter = inspect.signature(function).parameters[name]
        word = name.upper() + (" ..." if is_list(parameter.annotation) else "")
        shown.append(word if parameter.default is parameter.empty else f"[{word}]")
    return "".join(f"{word} " for word in shown)


def metavar(annotation: Any) -> str:
    """The placeholder of a value in the help text, as in INT or {gpr-ft,mcip}."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    if values := choices(annotation):
        return "{" + ",".join(values) + "}"
    if typing.get_origin(annotation) is list:
        return f"{metavar(parts[0])} ..."
    if parts:
        return metavar(parts[0])
    name: str = annotation.__name__
    return {"str": "TEXT", "bool": "{true,false}"}.get(name, name.upper())


def choices(annotation: Any) -> tuple[str, ...]:
    """The values that a parameter may have, where they are listed."""
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()


def is_list(annotation: Any) -> bool:
    """Whether a parameter takes several values."""
    return any(typing.get_origin(part) is list for part in (annotation, *typing.get_args(annotation)))
