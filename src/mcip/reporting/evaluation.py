"""What `mcip.evaluate` returns: the results of each model, to be shown, compared and handed on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mcip.core.files import read_json
from mcip.evaluation.suites import TABLE1
from mcip.reporting.caveats import all_caveats, deviations
from mcip.reporting.results import Results, read_results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation(Sequence[Results]):
    """The results of several models, in their order; a table when it is shown.

    Attributes:
        paths: The results files.
        results: What they hold.

    Example:
        >>> evaluation = mcip.evaluate(["base=toyshop"], "runs/results", data="test.parquet")  # doctest: +SKIP
        >>> evaluation[0].measured["i2i"].percent  # doctest: +SKIP
        17.31
        >>> evaluation.to_pandas().query("headline")  # doctest: +SKIP
    """

    paths: tuple[Path, ...]
    results: tuple[Results, ...]

    @classmethod
    def read(cls, paths: Sequence[str | Path]) -> Evaluation:
        """Read results files.

        Raises:
            ArtefactError: One is missing, or something else.
        """
        return cls(tuple(map(Path, paths)), tuple(map(read_results, paths)))

    @overload
    def __getitem__(self, index: int) -> Results: ...
    @overload
    def __getitem__(self, index: slice) -> Evaluation: ...
    def __getitem__(self, index: int | slice) -> Results | Evaluation:
        if isinstance(index, slice):
            return Evaluation(self.paths[index], self.results[index])
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def to_pandas(self) -> pd.DataFrame:
        """One row per model, task and metric.

        Returns:
            The columns model, suite, task, kind, metric, value (a share from 0 to 1), headline (whether the metric
            stands for the task), and low and high, the 95 % bootstrap interval of headline metrics.
        """
        import pandas as pd

        columns = ["model", "suite", "task", "kind", "metric", "value", "headline", "low", "high"]
        return pd.DataFrame.from_records(list(self._rows()), columns=columns)

    def to_json(self) -> str:
        """The content of the results files as a JSON list."""
        return json.dumps([read_json(path) for path in self.paths], ensure_ascii=False)

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        for result in self.results:
            for name, measured in result.measured.items():
                for metric, value in measured.metrics.items():
                    headline = metric == measured.headline
                    interval = measured.interval if headline else None
                    what = (result.model, result.suite, name, measured.task.kind, metric, value)
                    yield *what, headline, *(interval or (None, None))

    def __str__(self) -> str:
        return "\n".join(map(str, self.paths))

    def _repr_html_(self) -> str:
        table = self.to_pandas().query("headline").pivot(index="model", columns="task", values="value")
        html: str = (100 * table).round(1).to_html()
        return html

    def __rich__(self) -> RenderableType:
        # Imported here: the comparison stands on this module's results.
        from mcip.reporting.comparison import Comparison
        from mcip.reporting.table import as_text

        parts: list[RenderableType] = [as_text(Comparison.of(self.results))] if self.results else []
        parts += [Text(_average(result)) for result in self.results if result.suite == "table1"]
        parts += [table for table in (self._space(), self._missing()) if table.row_count]
        parts += [Text(line) for line in all_caveats(self.results, deviations)]
        return Group(*parts, *(Text(f"Results: {path}") for path in self.paths))

    def _space(self) -> Table:
        """The joint space of each model, once for the tasks that have the same images and captions."""
        table = Table("model", "task", "modality gap", "probe accuracy", "alignment")
        for result in self.results:
            shown = set()
            for name, measured in result.measured.items():
                if measured.space and measured.data_hash not in shown:
                    shown.add(measured.data_hash)
                    values = [measured.space.get(key) for key in ("modality_gap", "probe_accuracy", "alignment")]
                    table.add_row(Text(result.model), Text(name), *("-" if v is None else f"{v:.3f}" for v in values))
        return table

    def _missing(self) -> Table:
        table = Table("missing", "why")
        for title, reason in dict.fromkeys(pair for result in self.results for pair in result.missing):
            table.add_row(Text(title), Text(reason))
        return table


def _average(result: Results) -> str:
    if result.average is not None:
        return f"{result.model}: AVG {100 * result.average:.1f}"
    lacking = len(TABLE1) - sum(measured.task.column in TABLE1 for measured in result.measured.values())
    return f"{result.model}: AVG needs all {len(TABLE1)} columns, {lacking} are missing"
