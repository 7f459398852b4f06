"""The command: what it prints, wrong usage, and errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from mcip.cli.main import main
from mcip.core.errors import DataError
from tests.cli.calls import NEEDED, calls_of, usage_error


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
