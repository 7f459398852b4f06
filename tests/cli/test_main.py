"""The command: flags and YAML from signatures, errors that help, exit codes."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import mcip
from mcip.cli.main import COMMANDS, main, parse
from mcip.cli.signatures import signature_of, summary_of
from mcip.core.errors import DataError

NEEDED = ["--data", "d.csv", "--out", "runs/x", "--model", "toyshop"]


def calls_of(monkeypatch: pytest.MonkeyPatch, stage: str, result: object = Path("made")) -> list[dict[str, Any]]:
    """Put a stand-in in the place of a stage; what it is called with."""
    calls: list[dict[str, Any]] = []

    def stand_in(**parameters: Any) -> object:
        calls.append(parameters)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setitem(vars(mcip), stage, stand_in)
    return calls


def usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("stage", COMMANDS)
def test_signature_read_from_source_is_that_of_the_function(stage: str) -> None:
    read, real = (
        signature_of(stage),
        getattr(importlib.import_module("mcip.toyshop.demo" if stage == "demo" else f"mcip.stages.{stage}"), stage),
    )
    assert typing.get_type_hints(read) == typing.get_type_hints(real)
    assert read.__doc__ == real.__doc__
    assert str(read.__doc__).startswith(summary_of(stage))
    own, others = (
        [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()] for f in (read, real)
    )
    assert own == others


@pytest.mark.parametrize("stage", COMMANDS)
def test_help_explains_every_parameter(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([stage, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name, parameter in inspect.signature(signature_of(stage)).parameters.items():
        assert f"--{name} " in shown
        if parameter.default not in (None, parameter.empty):
            assert f"[{parameter.default}]" in shown
    assert "+" not in "".join(line.split("  ")[1] for line in shown.splitlines() if line.startswith("  --"))
    assert "\b" not in shown
    assert ("or toyshop, the small one" in shown.replace("\n", " ")) == ("--model " in shown)


def test_names_with_hyphens_are_not_broken_in_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in range(60, 112, 3):
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit):
            main(["export", "--help"])
        assert "mcip/ViT-SO400M-14-SigLIP-384" in capsys.readouterr().out


def test_help_imports_neither_torch_nor_a_stage() -> None:
    code = (
        "import sys; from mcip.cli.main import main\n"
        "for arguments in (['--help'], ['tune', '--help'], ['tune', '--bach_size', '3']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'open_clip', 'datasets', 'mcip.stages.tune'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_main_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    shown = capsys.readouterr().out
    assert all(re.search(f"^    {stage}( |$)", shown, re.MULTILINE) for stage in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mcip {mcip.__version__}\n"


def test_defaults_are_those_of_the_function() -> None:
    stage, parameters = parse(["tune", *NEEDED])
    assert stage == "tune"
    assert parameters == {
        **{name: p.default for name, p in inspect.signature(signature_of("tune")).parameters.items()},
        "data": "d.csv",
        "out": Path("runs/x"),
        "model": "toyshop",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--batch_size", "7"], {"batch_size": 7}),
        (["--batch-size", "7"], {"batch_size": 7}),
        (["--batch-size=7"], {"batch_size": 7}),
        (["--batch_size", "7", "--batch-size", "8"], {"batch_size": 8}),
        (["--lr", "1e-5"], {"lr": 1e-5}),
        (["--lr", "-1e-5"], {"lr": -1e-5}),
        (["--grad_checkpointing"], {"grad_checkpointing": True}),
        (["--grad-checkpointing", "false"], {"grad_checkpointing": False}),
        (["--split", "2024"], {"split": "2024"}),
        (["--split", "null"], {"split": None}),
        (["--captions", "runs/a b"], {"captions": Path("runs/a b")}),
        (["--validation", "x=y.csv"], {"validation": "x=y.csv"}),
        (["--method", "gpr-ft"], {"method": "gpr-ft"}),
        (["--steps", "5"], {"steps": 5}),
    ],
)
def test_flags(arguments: list[str], expected: dict[str, Any]) -> None:
    _, parameters = parse(["tune", *arguments, *NEEDED])
    assert {name: parameters[name] for name in expected} == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "base=a", "--model", "mcip=b"],
        ["--model", "base=a", "mcip=b"],
        ["--model=base=a", "--out", "elsewhere", "--model", "mcip=b"],
    ],
)
def test_list_flags_are_repeated_or_take_several_values(arguments: list[str]) -> None:
    _, parameters = parse(["evaluate", *arguments, "--out", "o"])
    assert parameters["model"] == ["base=a", "mcip=b"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.json", "b.json", "--out", "r", "--with-paper"],
        ["--out", "r", "a.json", "b.json", "--with-paper"],
        ["--out=r", "--with-paper", "a.json", "b.json"],
        ["a.json", "--with-paper", "true", "b.json", "--out", "r"],
        ["--results", "a.json", "b.json", "--with_paper=true", "--out", "r"],
        ["a.json", "--results", "b.json", "--with_paper", "--out", "r"],
    ],
)
def test_values_without_a_flag_are_those_of_a_first_parameter_that_is_a_list(arguments: list[str]) -> None:
    command, values = parse(["report", *arguments])
    assert command == "report"
    assert values["results"] == ["a.json", "b.json"]
    assert (values["out"], values["with_paper"]) == (Path("r"), True)
    assert parse(["report", "a.json", "b.json", "--out", "r"])[1]["with_paper"] is False


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["search", "p.lance", "a red mug", "cup.jpg", "--k", "5"],
            {"db": "p.lance", "query": ["a red mug", "cup.jpg"], "k": 5},
        ),
        (["search", "p.lance"], {"db": "p.lance", "query": None}),
        (["search", "mug", "cup", "--db", "p.lance"], {"db": "p.lance", "query": ["mug", "cup"]}),
        (["search", "--k", "5", "p.lance", "mug"], {"db": "p.lance", "query": ["mug"], "k": 5}),
        (["search", "p.lance", "--exact", "mug", "--query", "cup"], {"exact": True, "query": ["mug", "cup"]}),
        (["search", "--db", "p.lance", "--query", "mug"], {"db": "p.lance", "query": ["mug"]}),
        (["index", "photos", "--db", "p.lance"], {"photos": "photos", "db": "p.lance"}),
        (["index", "photos", "p.lance"], {"photos": "photos", "db": "p.lance"}),
        (["export", "toyshop", "a.pth", "--format=pth"], {"model": "toyshop", "out": Path("a.pth"), "format": "pth"}),
    ],
)
def test_values_without_names(arguments: list[str], expected: dict[str, Any]) -> None:
    _, parameters = parse(arguments)
    assert {name: parameters[name] for name in expected} == expected


def test_usage_names_the_values_without_names(capsys: pytest.CaptureFixture[str]) -> None:
    for stage, usage in (("search", "mcip search DB [QUERY ...] ["), ("index", "mcip index [PHOTOS] [DB] [")):
        with pytest.raises(SystemExit):
            main([stage, "--help"])
        assert usage in capsys.readouterr().out


def test_odd_values_in_lists() -> None:
    values = ["[a]", "1", "null", 'it"s', "a, b", ""]
    _, parameters = parse(["evaluate", "--out", "o", "--model", *values])
    assert parameters["model"] == values


def test_yaml_and_flags_over_it(tmp_path: Path) -> None:
    config = tmp_path / "tune.yaml"
    config.write_text("data: d.csv\nout: runs/x\nmodel: toyshop\nlr: 1e-5\nsteps: 10\ncaptions: runs/captions\n")
    for arguments in (["--config", str(config), "--steps", "20"], ["--steps", "20", f"--config={config}"]):
        _, parameters = parse(["tune", *arguments])
        assert (parameters["lr"], parameters["steps"]) == (1e-5, 20)
        assert parameters["captions"] == Path("runs/captions")
        assert "config" not in parameters


def test_lists_in_yaml_are_replaced_by_flags(tmp_path: Path) -> None:
    config = tmp_path / "evaluate.yaml"
    config.write_text("out: o\nmodel: [base=a, mcip=b]\n")
    assert parse(["evaluate", "--config", str(config)])[1]["model"] == ["base=a", "mcip=b"]
    assert parse(["evaluate", "--config", str(config), "--model", "c"])[1]["model"] == ["c"]


def test_printed_config_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tune", *NEEDED, "--lr", "1e-7", "--captions", "c", "--steps", "3"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--print_config"])
    assert stop.value.code == 0
    config = tmp_path / "tune.yaml"
    config.write_text(capsys.readouterr().out)
    assert parse(["tune", "--config", str(config)]) == parse(arguments)


@pytest.mark.parametrize("stage", COMMANDS)
def test_every_command_reads_the_config_it_prints(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = inspect.signature(signature_of(stage)).parameters.values()
    required = [p for p in parameters if p.default is p.empty]
    arguments = [stage]
    for parameter in required:
        arguments += [f"--{parameter.name}", *(["a=b", "c d"] if parameter.annotation == list[str] else ["runs/x y"])]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--print_config"])
    assert stop.value.code == 0
    config = tmp_path / "stage.yaml"
    config.write_text(capsys.readouterr().out)
    assert parse([stage, "--config", str(config)]) == parse(arguments)


def test_unknown_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--bach_size", "--bach-size", "--bach_size=3"):
        message = usage_error(["tune", flag, "3"], capsys)
        assert "unknown flag '--bach" in message
        assert "did you mean '--batch_size'?" in message


def test_unknown_yaml_key_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tune.yaml"
    config.write_text("bach_size: 3\n")
    message = usage_error(["tune", *NEEDED, "--config", str(config)], capsys)
    assert f"unknown key 'bach_size' in {config}; did you mean 'batch_size'?" in message


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'tuen'; did you mean 'tune'?" in usage_error(["tuen"], capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "d.csv"], "required: out, model"),
        ([*NEEDED, "--batch_size", "abc"], "--batch_size takes INT, not abc"),
        ([*NEEDED, "--method", "gprft"], "--method takes {gpr-ft,mcip}, not gprft; did you mean 'gpr-ft'?"),
        ([*NEEDED, "--lr"], "--lr"),
        (["stray", *NEEDED], "unexpected argument 'stray'"),
        ([*NEEDED, "--split", "a", "b"], "--split takes one value, not 2: a b"),
        (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
    ],
)
def test_wrong_usage(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(["tune", *arguments], capsys)
    assert expected in message
    assert "`mcip tune --help`" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- a\n", "no parameters"),
        ("", "no parameters"),
        ("a: [", "cannot read"),
        ("batch_size: x\n", "takes INT, not x"),
    ],
)
def test_bad_yaml(content: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tune.yaml"
    config.write_text(content)
    assert expected in usage_error(["tune", *NEEDED, "--config", str(config)], capsys)


def test_result_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = calls_of(monkeypatch, "export", Path("a/b.pth"))
    assert main(["export", "--model", "toyshop", "--out", "a/b.pth"]) == 0
    assert calls == [{"model": "toyshop", "out": Path("a/b.pth"), "format": "pth", "weights": None}]
    assert capsys.readouterr().out == "a/b.pth\n"
    calls_of(monkeypatch, "evaluate", [Path("a.json"), Path("b.json")])
    assert main(["evaluate", "--model", "a", "--out", "o"]) == 0
    assert capsys.readouterr().out == "a.json\nb.json\n"


def test_errors_of_stages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls_of(monkeypatch, "tune", DataError("row 17 of train.csv: no file images/a.jpg"))
    assert main(["tune", *NEEDED]) == 1
    shown = capsys.readouterr()
    assert shown.err == "error: row 17 of train.csv: no file images/a.jpg\n"
    assert shown.out == ""
    with pytest.raises(DataError):
        main(["tune", *NEEDED, "--debug"])
    monkeypatch.setenv("MCIP_DEBUG", "1")
    with pytest.raises(DataError):
        main(["tune", *NEEDED])


def test_interruption(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls_of(monkeypatch, "tune", KeyboardInterrupt())
    assert main(["tune", *NEEDED]) == 130
    assert "The same command goes on" in capsys.readouterr().err


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mcip", "tuen"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'tune'?" in done.stderr
