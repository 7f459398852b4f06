"""Messages and bars show what users named as it is."""

from __future__ import annotations

import pytest
from rich.progress import Progress

from mcip.core.progress import console, noted, progress


@pytest.mark.parametrize("name", ["mk[/bold]d", "[red]x", "a [link=x]b", ":cat: at noon"])
def test_names_are_text_in_messages_and_bars(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.print(f"There is {name}.")
    with progress(name, 2, "images") as advance:
        advance(2, f"read {name}")
    written = capsys.readouterr().err
    assert f"There is {name}." in written
    assert f"{name} " in written
    assert f"read {name}" in written


@pytest.mark.parametrize("width", [70, 80, 200])
def test_a_bar_is_one_line_with_its_numbers_however_long_the_title(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", width)
    with progress("embed a-table-with-quite-a-long-name.parquet", 256_000, "images") as advance:
        advance(256_000, "loss 2.668")
    [line] = capsys.readouterr().err.splitlines()
    assert len(line) <= width
    assert "256000/256000" in line
    assert "images/s" in line
    assert "loss 2.668" in line
    assert line.startswith("embed a-table")


@pytest.mark.parametrize("width", [70, 80, 200])
def test_what_takes_long_before_the_first_step_stands_on_the_bar(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", width)
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "is_interactive", True)
    monkeypatch.setenv("TERM", "xterm")
    made = list[Progress]()
    start = Progress.start

    def started(bar: Progress) -> None:
        made.append(bar)
        start(bar)

    monkeypatch.setattr(Progress, "start", started)
    with progress("mcip", 512_000, "images") as advance:
        [bar] = made
        with noted("compiling, 1 to 3 minutes"):
            bar.refresh()
            shown = capsys.readouterr().err.splitlines()[-1]
            assert "compiling, 1 to 3 minutes" in shown
            assert "0/512000" in shown
        advance(128)
        assert bar.tasks[0].fields["note"] == ""
    assert "ompiling" not in capsys.readouterr().err.splitlines()[-1]


def test_where_no_bar_can_be_seen_it_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("mcip", 4, "images"), noted("compiling, 1 to 3 minutes"):
        assert capsys.readouterr().err == "Compiling, 1 to 3 minutes.\n"
    with noted("compiling, 1 to 3 minutes"):
        assert "Compiling" in capsys.readouterr().err
