"""Read a stage's signature from its source: importing a stage takes seconds, explaining a flag should not."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PACKAGE = "mcip"
_ROOT = Path(__file__).parent.parent


def signature_of(stage: str) -> Callable[..., Any]:
    """Make a function with the name, parameters, types, defaults and docstring of a stage, which does nothing."""
    module = _module(stage)
    definition = _definition(module, stage)
    assert isinstance(definition, ast.FunctionDef)
    docstring = definition.body[:1]
    empty = ast.Module([ast.FunctionDef(stage, definition.args, docstring, [], definition.returns)], [])
    known = _meanings(module, empty)
    exec(compile(ast.fix_missing_locations(empty), module, "exec"), known)
    function: Callable[..., Any] = known[stage]
    function.__annotations__ = typing.get_type_hints(function)
    return function


def summary_of(stage: str) -> str:
    """The first line of a stage's docstring."""
    definition = _definition(_module(stage), stage)
    assert isinstance(definition, ast.FunctionDef)
    return (ast.get_docstring(definition) or "").partition("\n")[0]


def _module(stage: str) -> str:
    return f"{_PACKAGE}.toyshop.demo" if stage == "demo" else f"{_PACKAGE}.stages.{stage}"


@functools.cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """The statements at the top of a module of this package by the names that they define."""
    path = _ROOT.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = node
            case ast.ImportFrom(names=names):
                found |= dict.fromkeys((alias.asname or alias.name for alias in names), node)
    return found


def _definition(module: str, name: str) -> ast.stmt:
    return _definitions(module)[name]


def _meanings(module: str, node: ast.AST) -> dict[str, Any]:
    """What the names in `node` mean in `module`."""
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return {name: _meaning(module, name) for name in sorted(names) if not hasattr(builtins, name)}


def _meaning(module: str, name: str) -> Any:
    match _definition(module, name):
        case ast.ImportFrom(module=str(origin), names=names):
            original = next(alias.name for alias in names if name == (alias.asname or alias.name))
            if origin.partition(".")[0] == _PACKAGE:
                return _meaning(origin, original)
            return getattr(importlib.import_module(origin), original)
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            return eval(compile(ast.Expression(value), module, "eval"), _meanings(module, value))
        case other:
            raise TypeError(f"{module}.{name} is a {type(other).__name__}: a stage's signature cannot use it.")
