"""Results over several seeds: mean and spread, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

from mcip.core.errors import ConfigError
from mcip.reporting.results import read_results


class Spread(NamedTuple):
    """A mean over runs and their sample standard deviation, which is 0 for one run."""

    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        """The mean, and the deviation where there are several runs: "33.1 ± 0.4"."""
        return f"{self.mean:.1f}" if self.runs == 1 else f"{self.mean:.1f} ± {self.deviation:.1f}"


def mean_and_spread(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Summarise what runs with different seeds reached.

    Args:
        runs: The values of each run by name, such as task names; the names of all are the same.

    Returns:
        Mean and sample standard deviation (the divisor is the number of runs less 1) by name.

    Raises:
        ConfigError: There is no run, or the names differ.

    Example:
        >>> str(mean_and_spread([{"i2i": 33.0}, {"i2i": 34.0}])["i2i"])
        '33.5 ± 0.7'
    """
    if not runs or any(run.keys() != runs[0].keys() for run in runs):
        raise ConfigError("Runs of several seeds are summarised where all have the same tasks, and there is one.")
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    return {
        name: Spread(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))
        for name, values in columns.items()
    }


def percents(path: str | PathLike[str]) -> dict[str, float]:
    """The headline metrics of a results file in percent, by the task's name; a metric that is not there is left out."""
    measured = read_results(str(path)).measured
    return {name: one.percent for name, one in measured.items() if one.percent is not None}


def seeds_table(rows: Mapping[str, Mapping[str, Spread]]) -> str:
    """Markdown with a row for each model, a column for each name, and the number of runs."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| model | {' | '.join(names)} | runs |", f"|---|{'---:|' * (len(names) + 1)}"]
    for model, row in rows.items():
        runs = max((spread.runs for spread in row.values()), default=0)
        cells = [str(row[name]) if name in row else "" for name in names]
        lines.append(f"| {model} | {' | '.join(cells)} | {runs} |")
    return "\n".join([*lines, ""])
