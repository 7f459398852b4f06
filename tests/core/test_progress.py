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
