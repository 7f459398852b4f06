"""The command: help, flags and YAML."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import docstring_parser
import pytest

import mcip
from mcip.cli.main import COMMANDS, main, parse, stage_of
from tests.cli.calls import NEEDED


def parsed(arguments: list[str]) -> dict[str, Any]:
    result = parse(arguments)
    assert result is not None
    assert result[0] == arguments[0]
    return result[1]


def help_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("stage", COMMANDS)
def test_help_explains_every_parameter(
    stage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = help_of([stage, "--help"], capsys)
    words = " ".join(shown.split())
    explained = {param.arg_name: param.description for param in docstring_parser.parse(stage_of(stage).__doc__).params}
    for name, parameter in inspect.signature(stage_of(stage)).parameters.items():
        assert re.search(rf"--{name.replace('_', '-')}\b", words)
        assert " ".join((explained[name] or "").split()[:4]) in words
        if parameter.default not in (None, parameter.empty, False, True):
            assert f"[default: {parameter.default}]" in words
    assert "or toyshop, the small one" in " ".join(shown.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mcip.cli.main import main\n"
        "for arguments in (['--help'], ['tune', '--help'], ['tune', '--bach_size', '3'], ['search', '--help']):\n"
        "    main(arguments)\n"
        "heavy = {'torch', 'open_clip', 'datasets', 'numpy', 'pyarrow', 'PIL', 'lance', 'pandas', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_main_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        shown = help_of(arguments, capsys)
        assert all(re.search(rf"^\W*{stage}( |$)", shown, re.MULTILINE) for stage in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(["--version"], capsys) == f"mcip {mcip.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--batch_size", "7"], {"batch_size": 7}),
        (["--batch-size", "7"], {"batch_size": 7}),
        (["--batch-size=7"], {"batch_size": 7}),
        (["--lr", "1e-5"], {"lr": 1e-5}),
        (["--lr", "-1e-5"], {"lr": -1e-5}),
        (["--grad-checkpointing"], {"grad_checkpointing": True}),
        (["--grad-checkpointing=false"], {"grad_checkpointing": False}),
        (["--no-grad-checkpointing"], {"grad_checkpointing": False}),
        (["--split", "2024"], {"split": "2024"}),
        (["--captions", "runs/a b"], {"captions": "runs/a b"}),
        (["--validation", "x=y.csv"], {"validation": "x=y.csv"}),
        (["--method", "gpr-ft"], {"method": "gpr-ft"}),
        (["--steps", "5"], {"steps": 5}),
    ],
)
def test_flags(arguments: list[str], expected: dict[str, Any]) -> None:
    assert parsed(["tune", *arguments, *NEEDED]) == {
        "data": "d.csv", "out": Path("runs/x"), "model": "toyshop", **expected,
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "base=a", "--model", "mcip=b", "--out", "o"],
        ["--model", "base=a", "mcip=b", "--out", "o"],
        ["--model=base=a", "--out", "o", "--model", "mcip=b"],
    ],
)
def test_list_flags_are_repeated_or_take_several_values(arguments: list[str]) -> None:
    assert parsed(["evaluate", *arguments])["model"] == ["base=a", "mcip=b"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search", "p.lance", "a red mug", "-k", "5"], {"db": "p.lance", "query": ["a red mug"], "k": 5}),
        (["search", "p.lance", "a mug", "c.jpg", "--k=5"], {"db": "p.lance", "query": ["a mug", "c.jpg"], "k": 5}),
        (["search", "p.lance"], {"db": "p.lance"}),
        (["search", "--db", "p.lance", "--query", "mug"], {"db": "p.lance", "query": ["mug"]}),
        (["search", "p.lance", "--", "-k"], {"db": "p.lance", "query": ["-k"]}),
        (["export", "toyshop", "a.pth", "--format=pth"], {"model": "toyshop", "out": Path("a.pth"), "format": "pth"}),
        (["report", "a.json", "b.json", "--out", "r"], {"results": ["a.json", "b.json"], "out": Path("r")}),
    ],
)
def test_values_without_names(arguments: list[str], expected: dict[str, Any]) -> None:
    assert parsed(arguments) == expected


def test_odd_values_in_lists() -> None:
    values = ["[a]", "1", "null", 'it"s', "a, b", ""]
    assert parsed(["evaluate", "--out", "o", "--model", *values])["model"] == values


def test_yaml_and_flags_over_it(tmp_path: Path) -> None:
    config = tmp_path / "tune.yaml"
    config.write_text("data: d.csv\nout: runs/x\nmodel: toyshop\nlr: 1e-5\nsteps: 10\ncaptions: runs/c\nsplit: null\n")
    for arguments in (["--config", str(config), "--steps", "20"], ["--steps", "20", f"--config={config}"]):
        assert parsed(["tune", *arguments]) == {
            "data": "d.csv", "out": Path("runs/x"), "model": "toyshop", "captions": "runs/c", "steps": 20, "lr": 1e-5,
        }  # fmt: skip


def test_lists_in_yaml_are_replaced_by_flags(tmp_path: Path) -> None:
    config = tmp_path / "evaluate.yaml"
    config.write_text("out: o\nmodel: [base=a, mcip=b]\n")
    assert parsed(["evaluate", "--config", str(config)])["model"] == ["base=a", "mcip=b"]
    assert parsed(["evaluate", "--config", str(config), "--model", "c"])["model"] == ["c"]


@pytest.mark.parametrize("stage", COMMANDS)
def test_every_command_reads_the_config_it_prints(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [stage]
    for parameter in inspect.signature(stage_of(stage)).parameters.values():
        if parameter.default is parameter.empty:
            several = typing.cast(str, parameter.annotation).startswith("list")
            arguments += [f"--{parameter.name}", *(["a=b", "c d"] if several else ["runs/x y"])]
    printed = help_of([*arguments, "--print-config"], capsys)
    config = tmp_path / "stage.yaml"
    config.write_text(printed or "{}")
    assert parsed([stage, "--config", str(config)]) == parsed(arguments)
