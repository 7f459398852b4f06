"""Results as a table that fits the terminal: score, id and size always, other columns as many as there is room for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from mcip.retrieval.results import Results, brief, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

# Letters of a column of metadata at the most: the first of these with which all columns fit.
_WIDTHS: Final = (40, 24, 12)
# Letters of the column of ids that there is always room for.
_ID: Final = 16
# What stands between two columns: a line and a space on each side of it.
_BETWEEN: Final = 3


@dataclass(frozen=True)
class ResultsTable:
    """What shows results in a terminal, as wide as that is."""

    results: Results

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        hits, line = self.results.hits, self.results.line
        fixed = {"score": [f"{hit.score:.3f}" for hit in hits]}
        if any(hit.others for hit in hits):
            fixed["others"] = [f"+{len(hit.others)}" if hit.others else "" for hit in hits]
        ids = {"id": [printable(hit.id) for hit in hits]}
        sizes = {"pixels": [f"{hit.width} x {hit.height}" for hit in hits]}
        room = options.max_width - 1 - sum(_widest(column) + _BETWEEN for column in (fixed | sizes).items())
        id_width = min(_widest(("id", ids["id"])), max(_ID, room - _BETWEEN))
        metadata, left_out = self._fitting(room - id_width - _BETWEEN)
        table = Table()
        for name in fixed:
            table.add_column(name, no_wrap=True)
        table.add_column("id", overflow="fold", width=id_width)
        table.add_column("pixels", no_wrap=True)
        for name, (_, width) in metadata.items():
            table.add_column(Text(name), no_wrap=True, overflow="ellipsis", width=width)
        above = len(hits) if line is None else sum(hit.score >= line for hit in hits)
        captions = [f"below {line:.3f}: no better than for unrelated queries"] if above < len(hits) else []
        if left_out:
            captions.append(f"no room here for {', '.join(left_out)}: --output json has all")
        table.caption = Text("\n".join(captions)) if captions else None
        columns = [*(fixed | ids | sizes).values(), *(cells for cells, _ in metadata.values())]
        for number, row in enumerate(zip(*columns, strict=True)):
            if number == above:
                table.add_section()
            # As `Text`, since words in brackets are no markup here.
            table.add_row(*map(Text, row))
        yield table

    def _fitting(self, room: int) -> tuple[dict[str, tuple[list[str], int]], list[str]]:
        """The columns of metadata that there is room for, with the width of each, and the names of the others."""
        columns: dict[str, list[str]] = {}
        for name in self.results.metadata_names:
            values = [hit.metadata.get(name) for hit in self.results]
            if any(value is not None for value in values):
                columns[printable(name)] = [printable(brief(value)) for value in values]
        fitting: dict[str, tuple[list[str], int]] = {}
        for widest in _WIDTHS:
            widths = {name: min(widest, _widest((name, cells))) for name, cells in columns.items()}
            if sum(widths.values()) + _BETWEEN * len(widths) <= room:
                break
        for name, width in widths.items():
            if width + _BETWEEN <= room:
                fitting[name] = columns[name], width
                room -= width + _BETWEEN
        return fitting, [name for name in columns if name not in fitting]


def _widest(column: tuple[str, list[str]]) -> int:
    name, cells = column
    return max(cell_len(text) for text in (name, *cells))
