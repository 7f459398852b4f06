"""The command `mcip`: sub-commands, flags and YAML keys made from the signatures and docstrings of the stages."""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

import yaml
from cyclopts import App, CycloptsError, Group, Parameter, Token, UnknownOptionError
from cyclopts.config import Dict
from rich.console import Console

import mcip
from mcip.core.errors import McipError
from mcip.core.parameters import COMPUTING
from mcip.core.processes import of_environment, reports
from mcip.recipes import read_recipe

COMMANDS = (
    "improve", "embed", "mine", "tune", "align", "adapt", "isoclip", "interpolate", "evaluate", "report", "export",
    "push", "index", "search", "duplicates", "serve", "mcp", "models", "plan", "doctor", "demo",
)  # fmt: skip
# What other tools call a parameter.
_SYNONYMS = {
    "batch": "batch-size", "clip": "max-grad-norm", "index": "db", "learning-rate": "lr", "num-workers": "workers",
    "output": "out", "top-k": "k",
}  # fmt: skip
_GROUPS = {name: Group(title, sort_key=number) for number, (name, title) in enumerate(
    {"required": "Required", "optional": "Optional", "computing": "Where and how it is computed"}.items()
)}  # fmt: skip
_EPILOGUE = """
A model is an open_clip name with its pretrained tag (ViT-B-16/openai), a folder that mcip or open_clip saved \
(runs/mcip/model), hf-hub:OWNER/NAME, a released checkpoint (mcip/ViT-L-14-336 or mcip/ViT-SO400M-14-SigLIP-384), or \
toyshop, the small one in the package.

A table is a folder of class folders, a .csv, .tsv, .parquet or webdataset .tar file, a folder or glob of the last \
two, or a data set of the hub as OWNER/NAME. Its columns are image, label, caption or captions, split and id; only \
image is required.

--config FILE.yaml gives parameters by name, flags override it; --print-config prints them as such a file. --recipe \
NAME gives those of a recipe in the package (see `mcip plan`).
"""
# Columns of what is printed to a file or another program.
_WIDE = 200
_INTERRUPTED = 130
# What a shell says of a process that wrote to a closed pipe: 128 and the number of SIGPIPE.
_BROKEN_PIPE = 141
_MEASURE = (
    "measure it on images that it was not trained on:\n  mcip evaluate --data TEST_TABLE --model before={model} "
    "--model after={out}/model --out {out}-results"
)
# What to run after a command, with its parameters.
_NEXT = {
    "mine": "tune with these captions:\n  mcip tune --data {data} --captions {out} --model {model} --out {out}-tuned",
    "tune": _MEASURE,
    "align": _MEASURE,
}


class UsageError(McipError):
    """The command line or its configuration file is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; those of the process if none are given.

    Returns:
        The exit code: 0, 1 for an error that a stage reports, 2 for wrong usage, 130 for an interruption,
        141 where nobody reads the output to its end.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("MCIP_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        called = parse(arguments)
        result = None if called is None else _public(called[0])(**called[1])
    except UsageError as error:
        return _fail(error, 2)
    except McipError as error:
        if debug:
            raise
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command resumes from here.", file=sys.stderr)
        return _INTERRUPTED
    if of_environment().first:
        try:
            show(result)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads the output, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _BROKEN_PIPE
        if called is not None:
            show_next(*called)
    return 0


def parse(arguments: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Turn the arguments into the name of a stage and the parameters that are given.

    Returns:
        None where help, the version or a configuration was printed.

    Raises:
        UsageError: There is no such command, flag or YAML key, or a value is missing or has the wrong type.
    """
    config, tokens = _take_option(arguments, "--config")
    printing = {"--print-config", "--print_config"} & set(tokens)
    tokens = [token for token in tokens if token not in printing]
    command = next((token for token in tokens[:1] if token in COMMANDS), None)
    app = _app(command)
    if command is not None:
        given: dict[str, Any] = {}
        if "recipe" not in inspect.signature(stage_of(command)).parameters:
            recipe, tokens = _take_option(tokens, "--recipe")
            given = {} if recipe is None else _of_recipe(recipe, command)
        given |= {} if config is None else _read_config(config, command)
        app.config = [Dict(given, source=config or "the recipe", use_commands_as_keys=False)]
    try:
        function, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        hint = _synonym(error) if isinstance(error, UnknownOptionError) else ""
        raise UsageError(
            f"{str(error).strip()}{hint}\n`mcip {command or 'COMMAND'} --help` lists the parameters."
        ) from error
    if command is None or getattr(function, "__name__", "") != command:  # help or the version
        function(*bound.args, **bound.kwargs)
        return None
    parameters = dict(bound.arguments)
    if printing:
        filled = {name: str(value) if isinstance(value, Path) else value for name, value in parameters.items()}
        print(yaml.safe_dump(filled, sort_keys=False), end="")
        return None
    return command, parameters


def show(result: Any) -> None:
    """Print what a stage returned: a table where it has one, otherwise its text; a list one item per line."""
    if result is None:
        return
    if hasattr(result, "__rich__"):
        terminal = sys.stdout.isatty()
        Console(width=None if terminal or "COLUMNS" in os.environ else _WIDE, soft_wrap=not terminal).print(result)
    else:
        for item in result if isinstance(result, list) else [result]:
            print(item)


def show_next(command: str, parameters: Mapping[str, Any]) -> None:
    """Say on stderr what to run after a command, where something follows."""
    if command in _NEXT:
        quoted = {name: shlex.quote(str(value)) for name, value in parameters.items()}
        print(f"Next, {_NEXT[command].format(**quoted)}", file=sys.stderr)


def _public(command: str) -> Callable[..., Any]:
    """What `mcip.COMMAND` is, where it is the stage: `mcip.models` is a package."""
    public = getattr(mcip, command, None)
    return public if callable(public) else stage_of(command)


def stage_of(command: str) -> Callable[..., Any]:
    """The stage of a command."""
    module = importlib.import_module("mcip.toyshop.demo" if command == "demo" else f"mcip.stages.{command}")
    stage: Callable[..., Any] = getattr(module, command)
    return stage


def _app(chosen: str | None) -> App:
    """All commands, the chosen one with its parameters."""
    app = App(
        name="mcip", version=lambda: f"mcip {mcip.__version__}", help=(mcip.__doc__ or "").partition("\n")[0],
        help_epilogue="`mcip COMMAND --help` lists a command's parameters. --debug shows the traceback of an error.",
        default_parameter=Parameter(negative_iterable=(), consume_multiple=True), help_format="plaintext",
    )  # fmt: skip
    for command in COMMANDS:
        stage = stage_of(command)
        if command == chosen:
            app.command(_described(stage), name=command, help_epilogue=_EPILOGUE, help_format="plaintext")
        else:
            app.command(lambda: None, name=command, help=(stage.__doc__ or "").partition("\n")[0])
    return app


def _of_recipe(name: str, command: str) -> dict[str, Any]:
    """What a recipe of the package says of a stage."""
    recipe = read_recipe(name)
    if command not in recipe:
        raise UsageError(f"The recipe {name} is for: {', '.join(f'mcip {stage}' for stage in recipe)}.")
    return recipe[command]


def _read_config(path: str, command: str) -> dict[str, Any]:
    """The parameters in a YAML file."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no parameters: write one `name: value` per line.")
    known = inspect.signature(stage_of(command)).parameters
    for key in content:
        if key not in known:
            nearest = get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise UsageError(f"Unknown key {key!r} in {path}.{hint}")
    return {name: value for name, value in content.items() if value is not None}


def _described(stage: Callable[..., Any]) -> Callable[..., Any]:
    """A function with a stage's docstring and parameters, each with its group and the way its values are read."""
    signature = inspect.signature(stage)
    # What a stage returns is a type that is not imported to explain its flags.
    annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    hints = get_type_hints(SimpleNamespace(__annotations__=annotations), vars(inspect.getmodule(stage)))
    parameters = []
    for name, parameter in signature.parameters.items():
        required = parameter.default is parameter.empty
        group = "computing" if name in COMPUTING - {"out"} else "required" if required else "optional"
        extra: dict[str, Any] = {"group": _GROUPS[group]}
        if name == "k":
            extra["alias"] = "-k"
        if hints[name] in (int, int | None):
            extra["converter"] = _whole_number
        parameters.append(parameter.replace(annotation=Annotated[hints[name], Parameter(**extra)]))

    def described(*args: Any, **kwargs: Any) -> None: ...

    described.__doc__ = stage.__doc__
    described.__name__ = stage.__name__
    described.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    return described


def _whole_number(type_: type[Any], tokens: Sequence[Token]) -> int:
    """A whole number, never a rounded one."""
    return int(tokens[0].value)


def _take_option(arguments: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of an option, and the arguments without it."""
    rest, value = list(arguments), None
    for place, argument in enumerate(arguments):
        if argument == name:
            if place + 1 == len(arguments):
                raise UsageError(f"{name} takes a file.")
            value = arguments[place + 1]
            del rest[place : place + 2]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
            del rest[place]
    return value, rest


def _synonym(error: UnknownOptionError) -> str:
    # Where required parameters are missing too, the option stands in the value.
    word = (error.token.keyword or error.token.value).partition("=")[0].lstrip("-").replace("_", "-")
    return f" Did you mean --{_SYNONYMS[word]}?" if word in _SYNONYMS else ""


def _fail(error: Exception, code: int) -> int:
    if reports(str(error)):
        print(f"error: {error}", file=sys.stderr)
    return code
