"""Messages and bars show what users named as it is."""

from __future__ import annotations

import pytest

from mcip.core.progress import console, progress


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
