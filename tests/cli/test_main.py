"""The command: help, flags, YAML, errors, and what is printed."""

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
from rich.table import Table
from rich.text import Text

import mcip
from mcip.cli.main import COMMANDS, main, parse, stage_of
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


def parsed(arguments: list[str]) -> dict[str, Any]:
    result = parse(arguments)
    assert result is not None
    assert result[0] == arguments[0]
    return result[1]


def usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--bach_size", "--batch-size"), ("--bach-size", "--batch-size"), ("--bach_size=3", "--batch-size"),
        ("--learning_rate", "--lr"), ("--learning-rate=3", "--lr"), ("--num-workers", "--workers"),
    ],
)  # fmt: skip
def test_unknown_flag_names_the_nearest(flag: str, nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(["tune", *NEEDED, flag, "3"], capsys)
    assert f"Unknown option: {flag.partition('=')[0]}" in message
    assert f"Did you mean {nearest}?" in message


@pytest.mark.parametrize("arguments", [["p.lance", "dog", "--top_k", "3"], ["p.lance", "-x"], ["p.lance", "--dog"]])
def test_a_query_that_starts_with_a_dash_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(["search", *arguments], capsys)
    assert "Unknown option" in message
    assert ("Did you mean --k?" in message) == ("--top_k" in arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "d.csv"], "--out requires an argument"),
        ([*NEEDED, "--batch_size", "abc"], "--batch_size"),
        ([*NEEDED, "--steps", "1.5"], "'1.5'"),
        ([*NEEDED, "--method", "gprft"], 'Choose from: "gpr-ft", "mcip"'),
        ([*NEEDED, "--lr"], "--lr"),
        (["stray", *NEEDED], "stray"),
        ([*NEEDED, "--split", "a", "b"], "b"),
        (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["--config"], "--config takes a file"),
    ],
)
def test_wrong_usage(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in usage_error(["tune", *arguments], capsys)


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'Unknown command "tuen". Did you mean "tune"?' in usage_error(["tuen"], capsys)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- a\n", "no parameters"),
        ("", "no parameters"),
        ("a: [", "cannot read"),
        ("batch_size: x\n", "batch_size"),
        ("bach_size: 3\n", "Unknown key 'bach_size' in .*tune.yaml. Did you mean 'batch_size'?"),
    ],
)
def test_bad_yaml(content: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tune.yaml"
    config.write_text(content)
    assert re.search(expected, usage_error(["tune", *NEEDED, "--config", str(config)], capsys))


class Shown:
    def __rich__(self) -> Table:
        table = Table("name")
        table.add_row(Text("mk[/bold]d"))
        return table


@pytest.mark.parametrize(
    ("result", "printed"),
    [(Path("a/b.pth"), "a/b.pth\n"), ([Path("a"), Path("b")], "a\nb\n"), (None, ""), (Path("a[/b]"), "a[/b]\n")],
)
def test_result_is_printed(
    result: object, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = calls_of(monkeypatch, "export", result)
    assert main(["export", "--model", "toyshop", "--out", "a/b.pth"]) == 0
    assert calls == [{"model": "toyshop", "out": Path("a/b.pth")}]
    assert capsys.readouterr().out == printed


def test_tables_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls_of(monkeypatch, "export", Shown())
    assert main(["export", "toyshop", "a.pth"]) == 0
    assert "mk[/bold]d" in capsys.readouterr().out


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
    assert "The same command resumes" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error() -> None:
    code = (
        "import sys; from mcip.cli import main; main.parse = lambda tokens: ('search', {}); "
        "main._public = lambda name: lambda: ['a line'] * 100_000; sys.exit(main.main([]))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mcip", "tuen"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'Did you mean "tune"?' in done.stderr


def test_it_says_what_to_run_next(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls_of(monkeypatch, "tune")
    assert main(["tune", "--data", "d.csv", "--out", "runs/a b", "--model", "toyshop"]) == 0
    out, err = capsys.readouterr()
    assert out == "made\n"
    assert "mcip evaluate --data TEST_TABLE --model before=toyshop --model after='runs/a b'/model" in err
    calls_of(monkeypatch, "mine")
    assert main(["mine", *NEEDED, "--pool", "p.txt"]) == 0
    assert "mcip tune --data d.csv --captions runs/x --model toyshop" in capsys.readouterr().err
    calls_of(monkeypatch, "embed")
    assert main(["embed", *NEEDED]) == 0
    assert "Next" not in capsys.readouterr().err


def test_an_unknown_flag_is_explained_where_others_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean --lr?" in usage_error(["tune", "--learning_rate", "1"], capsys)
