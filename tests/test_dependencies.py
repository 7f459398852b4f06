"""The declared dependencies: all that is imported, in versions that agree with those of the tests."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Of modules that may not be installed: the distributions they come with.
DISTRIBUTIONS = {
    "oml": "open-metric-learning", "pillow_heif": "pillow-heif", "pillow_jxl": "pillow-jxl-plugin",
    "tokenizers": "transformers", "transformers": "transformers",
}  # fmt: skip
# Folders whose files import each other by their names alone.
OWN = {"mcip", "tests", *(path.stem for folder in ("benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))}
# Functions that import the module that their first argument names.
IMPORTING = {
    "module", "module_or_none", "optional.module", "importorskip", "pytest.importorskip", "importlib.import_module",
    "import_module",
}  # fmt: skip
# What is compared in a benchmark where it is installed, and leaves it out otherwise.
COMPARED = {"open-metric-learning", "torchcodec"}
# Trackers of metrics, which those who name them have.
TRACKERS = {"mlflow", "trackio", "wandb"}


def declared(*extras: str) -> dict[str, Requirement]:
    """What is installed with these extras, by canonical name; extras within them are followed."""
    found: dict[str, Requirement] = {}
    for text in (*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])):
        requirement = Requirement(text)
        nested = declared(*requirement.extras) if requirement.name == "mcip" else {requirement.name: requirement}
        found.update((canonicalize_name(name), part) for name, part in nested.items())
    return found


def imported(path: Path) -> Iterator[str]:
    """Top modules that a file imports when it runs, also by name through `module` and `importorskip`."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
            continue
        todo += ast.iter_child_nodes(node)
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTING:
            names = [str(value.value) for value in node.args[:1] if isinstance(value, ast.Constant)]
        yield from (name.partition(".")[0] for name in names)


def distributions(folder: Path) -> dict[str, set[str]]:
    """The distributions that a folder's files import, with the files."""
    installed = packages_distributions()
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        for name in set(imported(path)) - sys.stdlib_module_names - OWN:
            distribution = DISTRIBUTIONS.get(name) or installed.get(name, [name])[0]
            found.setdefault(canonicalize_name(distribution), set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_modules_are_found_however_they_are_imported(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import alpha\nelse:\n    import beta.part\n"
        "def load():\n    from gamma.part import name\n    return module('delta.part')\n"
        "from . import own\n",
        encoding="utf-8",
    )
    assert set(imported(path)) == {"typing", "beta", "gamma", "delta"}


@pytest.mark.parametrize(
    ("folder", "extras"), [("src", ["all"]), ("tests", ["all", "dev"]), ("benchmarks", ["dev"]), ("examples", ["dev"])]
)
def test_all_that_is_imported_is_declared(folder: str, extras: list[str]) -> None:
    known = declared(*extras).keys() | COMPARED | TRACKERS
    assert {name: files for name, files in distributions(ROOT / folder).items() if name not in known} == {}


def test_all_that_is_declared_is_imported() -> None:
    # Imported by name or by another library: parts of open_clip, torch, uvicorn, Ray and ONNX, readers of images.
    indirect = {
        "tensorboard",
        "sentencepiece",
        "pillow-heif",
        "pillow-jxl-plugin",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "uvloop",
    }
    assert declared("all").keys() - distributions(ROOT / "src").keys() - indirect == set()


def test_all_has_every_extra_of_users() -> None:
    (requirement,) = map(Requirement, EXTRAS["all"])
    assert requirement.extras == EXTRAS.keys() - {"all", "dev", "docs"}


@pytest.mark.parametrize("text", [text for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts])
def test_every_dependency_has_a_lower_bound(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.name == "mcip" or [part.operator for part in requirement.specifier] == [">="]


def test_constraints_are_versions_that_are_allowed() -> None:
    known = declared("all", "dev")
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    pins = {}
    for line in lines:
        pinned = re.fullmatch(r"([\w.-]+)==([\w.!+-]+)", line)
        assert pinned, f"{line!r} is no name and version"
        pins[canonicalize_name(pinned[1])] = pinned[2]
    assert "mcip" not in pins
    for name, version in pins.items():
        assert name not in known or known[name].specifier.contains(version), f"{name} {version}"
    # What has to be there for the tests, which do not need SigLIP's tokenizer and the readers of phones' images.
    assert declared("dev").keys() - pins.keys() == set()
