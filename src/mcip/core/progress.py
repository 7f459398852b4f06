"""Progress bars with a rate and an estimate of the time left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from mcip.core.processes import of_environment
from mcip.core.time_limit import check_time

# Progress and messages go to stderr, so that what a command prints on stdout can be piped. Brackets in them are text:
# names and paths hold some. Of several processes the first speaks for all. Without ipywidgets a notebook shows text.
console = Console(
    stderr=True, markup=False, emoji=False, quiet=not of_environment().first,
    force_jupyter=None if find_spec("ipywidgets") else False,
)  # fmt: skip


# Letters of a title that are always shown, and columns that the bar, the counts, the rate, the time and a note take.
_TITLE = 16
_NUMBERS = 56

# Writes the note of the bar that is shown.
_write_note: ContextVar[Callable[[str], None] | None] = ContextVar("note of the bar", default=None)


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__(Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self.unit}/s" if speed else f"- {self.unit}/s")


def duration(seconds: float) -> str:
    """A length of time in words, rounded as an estimate is.

    Example:
        >>> duration(41), duration(700), duration(9000)
        ('41 s', '12 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Advance(Protocol):
    """Moves a bar on by `amount`; the note stands at its end."""

    def __call__(self, amount: int, note: str = "") -> None:
        """Move on."""


@contextlib.contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show a bar while the block runs; the block gets `advance(amount, note)`, which ends it where `time_limit` does.

    Args:
        title: What is going on.
        total: How much there is to do, in `unit`.
        unit: What is counted, in the plural.
        done: How much had been done before.
    """
    # One line, however narrow the terminal: a long title, such as a file's name, is cut before the numbers are.
    title_column = Column(no_wrap=True, overflow="ellipsis", max_width=max(_TITLE, console.width - _NUMBERS))
    columns = (
        TextColumn("{task.description}", markup=False, table_column=title_column),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _Rate(unit),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(amount: float, note: str = "") -> None:
            bar.update(task, advance=amount, note=note)
            check_time()

        token = _write_note.set(lambda note: bar.update(task, note=note))
        try:
            yield advance
        finally:
            _write_note.reset(token)


@contextlib.contextmanager
def noted(note: str) -> Iterator[None]:
    """Show a note at the end of the bar while the block runs; it is a line where no bar can be seen."""
    write = _write_note.get() if console.is_interactive else None
    if write is None:
        console.print(f"{note[:1].upper()}{note[1:]}.")
        yield
        return
    write(note)
    try:
        yield
    finally:
        write("")
