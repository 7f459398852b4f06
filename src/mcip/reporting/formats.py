"""The table of results as CSV, Markdown and LaTeX, with the caveats; what users named is text in each, not syntax."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from mcip.reporting.caveats import all_caveats, caveats
from mcip.reporting.comparison import Comparison
from mcip.reporting.diagnostics import SENTENCES, diagnostics_table
from mcip.reporting.table import DOUBT, Cell, Column, caption, cells, columns, groups, intervals, rows

# What starts a formula in a spreadsheet, in full width too.
_FORMULA = tuple("=+-@＝＋－＠")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>#|~$&]")
# A bracket or star at the start of a row would be an argument of the line break before it.
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}", "*": "{*}",
    DOUBT: r"$\approx$", "–": "--",
    **{character: "\\" + character for character in "&%$#_{}"},
}  # fmt: skip


def as_csv(comparison: Comparison) -> str:
    """The rows as CSV, then the ends of the intervals as "TASK low" and "TASK high", then notes.

    What is missing is empty. Names that a spreadsheet would take for a formula start with an apostrophe.
    """
    interval_rows = intervals(comparison)
    known = [task for task in comparison.tasks if any(row[task] for row in interval_rows)]
    notes = [" ".join(caveats(result)) for result in comparison.results]
    heads = ["model", *comparison.tasks, *(f"{task} {end}" for task in known for end in ("low", "high"))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_literal(head) for head in heads] + ["notes"] * any(notes))
    for row, interval, note in zip(rows(comparison), interval_rows, notes, strict=True):
        ends = [end for task in known for end in interval[task] or (None, None)]
        values = [row[task] for task in comparison.tasks]
        writer.writerow([_literal(row["model"]), *values, *ends] + [_literal(note)] * any(notes))
    return text.getvalue()


def _literal(text: str) -> str:
    """Text on one line that a spreadsheet does not compute."""
    text = " ".join(text.split())
    return "'" + text if text.startswith(_FORMULA) else text


def as_markdown(comparison: Comparison) -> str:
    """The table as Markdown: the best in bold, differences to the baseline in brackets."""
    shown = columns(comparison)

    def line(parts: list[str]) -> str:
        return "| " + " | ".join(parts) + " |"

    def text(cell: Cell) -> str:
        value = f"**{cell.value}**" if cell.best else cell.value
        return f"{value} ({cell.difference})" if cell.difference else value

    names = {model: _markdown(model) for model in comparison.models}
    titles = [_markdown(column.title) + (f" ({column.metric})" if column.metric else "") for column in shown]
    lines = [line(["model", *titles]), "|".join(["", "---", *["---:"] * len(shown), ""])]
    lines += [line([name, *(text(cell) for cell in cells(comparison, model))]) for model, name in names.items()]
    lines += ["", _markdown(caption(comparison)), ""]
    if notes := all_caveats(comparison.results):
        lines += [*(f"* {_markdown(note)}" for note in notes), ""]
    by_model = {model: [cell.interval for cell in cells(comparison, model)] for model in comparison.models}
    by_model = {model: ends for model, ends in by_model.items() if any(ends)}
    if by_model:
        kept = [place for place in range(len(titles)) if any(ends[place] for ends in by_model.values())]
        lines.append(line(["95 % interval", *(titles[place] for place in kept)]))
        lines.append("|".join(["", *["---"] * (len(kept) + 1), ""]))
        lines += [line([names[model], *(ends[place] for place in kept)]) for model, ends in by_model.items()]
        lines.append("")
    heads, diagnostics = diagnostics_table(comparison.results)
    if diagnostics:
        lines += [line(heads), "|".join(["", "---", "---", *["---:"] * (len(heads) - 2), ""])]
        lines += [line([_markdown(model), _markdown(task), *values]) for model, task, *values in diagnostics]
        lines += ["", SENTENCES, ""]
    return "\n".join(lines)


def _markdown(text: str) -> str:
    """Text on one line, whose punctuation is no markup."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def as_latex(comparison: Comparison) -> str:
    """The table as a LaTeX tabular with the rules of booktabs: the best in bold, differences to the baseline small."""
    shown = columns(comparison)

    def text(cell: Cell) -> str:
        value = rf"\textbf{{{cell.value}}}" if cell.best else cell.value.replace("-", "--")
        difference = cell.difference.replace(DOUBT, r"\approx")
        return f"{value} {{\\scriptsize ${difference}$}}" if difference else value

    def line(parts: list[str]) -> str:
        return " & ".join(parts) + r" \\"

    body: list[str] = []
    for model in comparison.models:
        if body and comparison.result(model).paper and r"\midrule" not in body:
            body.append(r"\midrule")
        row = cells(comparison, model)
        body.append(line([_latex(model), *(text(cell) for cell in row)]))
        if any(cell.interval for cell in row):
            body.append(line(["", *(_latex_interval(cell.interval) for cell in row)]))
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * len(shown)}}}",
            r"\toprule",
            line(["", *(rf"\multicolumn{{{span}}}{{c}}{{{_latex(group)}}}" for group, span in groups(shown))]),
            " ".join(_rules(shown)),
            line(["model", *(_latex(f"{column.title} {column.metric}".strip()) for column in shown)]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(
                rf"\par{{\footnotesize {_latex(sentence)}\par}}"
                for sentence in (caption(comparison), *all_caveats(comparison.results))
            ),
            "",
        ]
    )


def _latex_interval(interval: str) -> str:
    return rf"{{\scriptsize {_latex(interval)}}}" if interval else ""


def _rules(shown: list[Column]) -> Iterator[str]:
    start = 2
    for group, span in groups(shown):
        if group:
            yield rf"\cmidrule(lr){{{start}-{start + span - 1}}}"
        start += span


def _latex(text: str) -> str:
    """Text on one line, whose punctuation is no command."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
