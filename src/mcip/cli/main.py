"""The command `mcip`: sub-commands, flags and YAML keys made from the signatures and docstrings of the stages."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import docstring_parser
import yaml
from jsonargparse import ArgumentParser

import mcip
from mcip.cli.help import HelpFormatter, choices, is_list, metavar, placeholders, positional
from mcip.cli.signatures import signature_of, summary_of
from mcip.core.errors import McipError

COMMANDS = (
    "embed", "mine", "tune", "align", "interpolate", "evaluate", "report", "export", "index", "search", "duplicates",
    "serve", "demo",
)  # fmt: skip
# Parameters of many stages that change how it is computed rather than what comes out.
_COMPUTING = frozenset(
    {
        "workers", "device", "precision", "max_unreadable", "cache_gb", "grad_checkpointing", "checkpoint_every",
        "image_block", "shard_rows", "embed_batch_size",
    }
)  # fmt: skip
# What the values of parameters that many stages have in common may be, shown at the end of their help.
_VALUES = {
    "model": "A model is an open_clip name with its pretrained tag (ViT-B-16/openai), a folder that mcip or open_clip "
    "saved (runs/mcip/model), hf-hub:OWNER/NAME, a released checkpoint (mcip/ViT-L-14-336 or "
    "mcip/ViT-SO400M-14-SigLIP-384), or toyshop, the small one in the package.",
    "data": "A table is a folder of class folders, a .csv, .tsv, .parquet or webdataset .tar file, a folder or glob of "
    "the last two, or a data set of the hub as OWNER/NAME. Its columns are image, label, caption or captions, split "
    "and id; only image is required.",
}
_SWITCH_VALUES = ("true", "false", "yes", "no")
_INTERRUPTED = 130


class UsageError(McipError):
    """The command line or its configuration file is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; those of the process if none are given.

    Returns:
        The exit code: 0, 1 for an error that a stage reports, 2 for wrong usage, 130 for an interruption.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("MCIP_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        if not arguments or arguments[0].startswith("-"):
            _main_parser().parse_args(arguments or ["--help"])
        command, parameters = parse(arguments)
        made = getattr(mcip, command)(**parameters)
    except UsageError as error:
        return _fail(error, 2)
    except McipError as error:
        if debug:
            raise
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return _INTERRUPTED
    for path in made if isinstance(made, list) else [made]:
        print(path)
    return 0


def parse(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Turn the arguments into the name of a stage and its parameters.

    Raises:
        UsageError: There is no such command, flag or YAML key, or a value is missing or has the wrong type.
    """
    command = arguments[0]
    if command not in COMMANDS:
        raise UsageError(f"unknown command {command!r}{_nearest(command, COMMANDS)}\nCommands: {', '.join(COMMANDS)}.")
    parser = _Parser(command)
    try:
        parsed = parser.parse_args(parser.tidy(arguments[1:]))
    except (UsageError, argparse.ArgumentError) as error:
        message = parser.explain(error) if isinstance(error, argparse.ArgumentError) else str(error)
        raise UsageError(f"{message}\n`mcip {command} --help` lists the parameters.") from error
    return command, {name: value for name, value in parsed.as_dict().items() if name in parser.types}


class _Parser(ArgumentParser):
    """The parser of one sub-command."""

    def __init__(self, command: str) -> None:
        function = signature_of(command)
        explained = docstring_parser.parse(function.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
        parameters = inspect.signature(function).parameters
        super().__init__(
            prog=f"mcip {command}",
            usage=f"mcip {command} {placeholders(function)}[--config FILE.yaml] [--PARAMETER VALUE ...]",
            description=explained.description,
            epilog="\n\n".join(text for name, text in _VALUES.items() if name in parameters),
            formatter_class=HelpFormatter,
            exit_on_error=False,
        )
        help_of = {parameter.arg_name: parameter.description for parameter in explained.params}
        groups = {title: self.add_argument_group(title) for title in ("required", "optional", "computing")}
        self.types: dict[str, Any] = {}
        self.positional = list(positional(function))
        for name, parameter in parameters.items():
            self.types[name] = parameter.annotation
            required = parameter.default is parameter.empty
            group = groups["required" if required else "computing" if name in _COMPUTING else "optional"]
            own = {"required": True} if required else {"default": parameter.default}
            own |= {"type": parameter.annotation, "metavar": metavar(parameter.annotation), "help": help_of[name]}
            group.add_argument(f"--{name}", **own)
        self.add_argument(
            "--config", action="config", metavar="FILE.yaml", help="Parameters by name; flags override its values."
        )
        printing = next(action for action in self._actions if "--print_config" in action.option_strings)
        printing.help = "Print the parameters as YAML for --config, those given filled in, and stop."

    def tidy(self, arguments: Sequence[str]) -> list[str]:
        """Check the names of the flags and write them as jsonargparse takes them, the configuration file first.

        Flags may have hyphens or underscores, list flags several values or several occurrences, and switches no value.
        Values that no flag takes are, in their order, those of the stage's positional parameters that no flag gives.

        Raises:
            UsageError: There is no such flag or YAML key, or there are more values than parameters to take them.
        """
        given: dict[str, list[str]] = {}
        free: list[str] = []
        problem = ""
        for flag, values in _by_flag(arguments):
            name = flag.removeprefix("--").replace("-", "_")
            if name in ("help", "_h"):
                return ["--help"]
            if not flag:
                free += values
                continue
            if name not in (*self.types, "config", "print_config"):
                raise UsageError(f"unknown flag {flag!r}{_nearest(name, self.types, '--')}")
            if is_list(self.types.get(name)):
                given.setdefault(name, []).extend(values)
                continue
            is_switch = self.types.get(name) is bool
            count = 0 if is_switch and "".join(values[:1]).lower() not in _SWITCH_VALUES else 1
            if len(values) > max(1, count):
                problem = problem or f"{flag} takes one value, not {len(values)}: {' '.join(values)}"
            free += values[count:]
            values = values[:count]
            if name == "config" and values:
                self._check_keys(Path(values[0]))
            given[name] = ["true"] if is_switch and not values else values
        self._name_free(free, given, problem)
        given |= {name: [json.dumps(values)] for name, values in given.items() if is_list(self.types.get(name))}
        order = {"config": 0, "print_config": 2}
        return ["=".join([f"--{name}", *given[name]]) for name in sorted(given, key=lambda name: order.get(name, 1))]

    def _name_free(self, free: list[str], given: dict[str, list[str]], problem: str) -> None:
        """Give the values that no flag took to the positional parameters."""
        for name in self.positional:
            if free and is_list(self.types[name]):
                given[name] = [*free, *given.get(name, [])]
                return
            if free and name not in given:
                given[name] = [free.pop(0)]
        if free:
            raise UsageError(problem or f"unexpected argument {free[0]!r}: parameters are given as --NAME VALUE.")

    def explain(self, error: argparse.ArgumentError) -> str:
        """What is wrong with a value, by the name and the type of its parameter."""
        message = str(error)
        name = message.removeprefix('Parser key "').partition('"')[0]
        if name not in self.types or "Got value: " not in message:
            return message
        value = message.rpartition("Got value: ")[2]
        return f"--{name} takes {metavar(self.types[name])}, not {value}{_nearest(value, choices(self.types[name]))}"

    def _check_keys(self, path: Path) -> None:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"cannot read {path}: {error}") from error
        if not isinstance(content, dict):
            raise UsageError(f"{path} holds no parameters: write one `name: value` a line.")
        for key in content:
            if key not in self.types:
                raise UsageError(f"unknown key {key!r} in {path}{_nearest(str(key), self.types)}")


def _main_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mcip",
        usage="mcip COMMAND [VALUE ...] [--PARAMETER VALUE ...]",
        description=mcip.__doc__.partition("\n")[0] if mcip.__doc__ else None,
        epilog="`mcip COMMAND --help` lists the parameters of a command.",
        exit_on_error=False,
    )
    parser.add_argument("--version", action="version", version=f"mcip {mcip.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error (also: MCIP_DEBUG=1)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        commands.add_parser(command, help=summary_of(command))
    return parser


def _by_flag(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the values that follow it; a value may be attached with "="."""
    flag, values = "", list[str]()
    for argument in arguments:
        if argument.startswith("--") or argument == "-h":
            if flag or values:
                yield flag, values
            flag, separator, value = argument.partition("=")
            values = [value] if separator else []
        else:
            values.append(argument)
    if flag or values:
        yield flag, values


def _nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    found = get_close_matches(word, known, n=1)
    return f"; did you mean {prefix + found[0]!r}?" if found else ""


def _fail(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
