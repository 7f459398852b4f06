"""What only some systems have is not imported, and used only where it is asked for first."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mcip

MODULES = {"fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "winreg"}
FUNCTIONS = {"fork", "getuid", "geteuid", "mkfifo", "sched_getaffinity", "statvfs"}
SOURCES = sorted(Path(mcip.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_of_one_system_only(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert not imported & MODULES
    assert not used & FUNCTIONS
