"""The table of results in its formats: what users named is text in each of them, and the caveats stand in all."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mcip.reporting import table
from mcip.reporting.caveats import all_caveats
from mcip.reporting.comparison import Comparison
from mcip.reporting.formats import as_csv, as_latex, as_markdown
from mcip.reporting.paper import paper_rows
from tests.reporting.factories import of_table1, results, three

# Names that are syntax in Markdown, HTML, LaTeX, rich's markup or a spreadsheet.
NAMES = (
    "mk[/bold]d", "[red]x", "a|b", "*a* _b_ **c**", "`code`", "<b>&amp;", "[a](http://b)", "![a](b)", "# head",
    "- item", "1. item", "> quote", "~~a~~", "back\\slash", "two\nlines", "&lt;", "$a$", "a_b_c", "=1+2", "%",
    "\\input{x}", "{}^~",
)  # fmt: skip


def test_rows_are_percent_to_a_hundredth_and_missing_values_are_none() -> None:
    comparison = Comparison.of([results("base", birds=12.34567, names=5), results("other", birds=float("nan"))])
    expected = [{"model": "base", "birds": 12.35, "names": 5.0}, {"model": "other", "birds": None, "names": None}]
    assert table.rows(comparison) == expected
    json.dumps(table.rows(comparison), allow_nan=False)


def test_markdown_has_the_best_in_bold_and_differences_in_brackets() -> None:
    lines = as_markdown(Comparison.of(three())).splitlines()
    assert lines[0] == "| model | birds (mAP) | shops (mAP) | names (top-1) | search (R@5) | mean |"
    assert lines[3] == "| a\\&b | **60.0** (+40.0) | **70.0** (+40.0) | 40.0 (-10.0) | 44.0 (-16.0) | 53.5 (+13.5) |"
    assert lines[2].startswith("| base | 20.0 |")
    assert "**60.0** |" in lines[2]
    assert "**60.0** (+0.0)" in lines[4]


def test_latex_escapes_and_groups_columns_by_kind() -> None:
    text = as_latex(Comparison.of(three()))
    assert r"\multicolumn{2}{c}{image to image}" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4} \cmidrule(lr){5-5}" in text
    assert r"a\&b & \textbf{60.0} {\scriptsize $+40.0$}" in text
    assert r"c\_d" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    widths = {
        line.count("&") for line in text.replace(r"\&", "").splitlines() if line.endswith(r"\\") and "multi" not in line
    }
    assert widths == {5}


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(Comparison.of([*three(), results("e,f", birds=1)])))))
    assert [row["model"] for row in rows] == ["base", "a&b", "c_d", "e,f"]
    assert rows[1]["birds"] == "60.0"
    assert rows[3]["names"] == ""


def test_terminal_table_takes_names_literally() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120)
    console.print(table.as_text(Comparison.of([results("[red]base", birds=20), results("x", birds=40)])))
    assert "[red]base" in text.getvalue()
    assert "40.0 +20.0" in text.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_terminal_table_is_whole_at_any_width(width: int) -> None:
    text = io.StringIO()
    scores = [{f"task-{place}": float(place**2 + model) for place in range(1, 8)} for model in (1, 2)]
    compared = Comparison.of([results("base", **scores[0]), results("a-model-with-a-name", **scores[1])])
    Console(file=text, width=width).print(table.as_text(compared))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = [word for line in lines for word in line.replace("│", " ").split()]
    tables = words.count("a-model-with-a-name")
    assert tables == sum(line.startswith("│ base ") for line in lines)
    assert tables == 1 if width == 200 else tables > 1
    for model in (1, 2):
        assert [words.count(f"{place**2 + model}.0") for place in range(1, 8)] == [1] * 7
    assert [words.count(f"task-{place}") for place in range(1, 8)] == [1] * 7


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text_in_markdown(name: str) -> None:
    base = results("base", birds=20) if name == "base" else replace(results("base", birds=20), note=f"note on {name}")
    text = as_markdown(Comparison.of([base, replace(results("x", birds=30), model=name)], baseline=name))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [token.children or [] for token in tokens if token.type == "inline"]
    plain = ["".join(child.content for child in children) for children in inline]
    expected = " ".join(name.split())
    assert expected in plain
    assert sum(expected in line for line in plain) == 3
    kinds = {child.type for children in inline for child in children}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close"}
    assert [token.type for token in tokens if token.type.endswith("list_open")] == ["bullet_list_open"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text_in_latex(name: str) -> None:
    lines = as_latex(
        Comparison.of([results("base", birds=20), replace(results("x", birds=30), model=name)])
    ).splitlines()
    (row,) = [line for line in lines if line.endswith(r"\textbf{30.0} {\scriptsize $+10.0$} \\")]
    cell = row.partition(" & ")[0]
    for command, character in (
        (r"\textbackslash{}", "\\"), (r"\textasciitilde{}", "~"), (r"\textasciicircum{}", "^"), (r"\textless{}", "<"),
        (r"\textgreater{}", ">"), (r"\textbar{}", "|"),
    ):  # fmt: skip
        cell = cell.replace(command, f"\0{ord(character)}\0")
    # What is left of special characters is escaped, and no row starts with what a line break takes as its argument.
    assert not row.startswith(("[", "*"))
    for character in "&%$#_{}":
        cell = cell.replace("\\" + character, character if character not in "{}" else "")
    assert "\\" not in cell


@pytest.mark.parametrize("name", ["=1+2", "+1", "-1", "@x", "\t=1", " =1", "\r@x", "＝1"])
def test_formulas_are_text_in_csv(name: str) -> None:
    base = results("base", **{name: 20.0})
    text = as_csv(Comparison.of([base, replace(base, model=name)]))
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == ["model", "'" + name.strip()]
    assert read[2] == ["'" + name.strip(), "20.0"]
    assert not any(cell.startswith("'") for cell in read[1])


def test_caveats_of_counts_and_protocol_stand_in_every_format() -> None:
    reasons = ("not the official release: 2 images, not 3", "on a subsample of about 1,000 images")
    results = of_table1("base", 50)
    tasks = {name: replace(measured, caveats=reasons) for name, measured in results.measured.items()}
    changed = replace(results, measured=tasks, missing=(("COCO", "there is no folder coco"),))
    compared = Comparison.of([changed, replace(changed, model="mine")])
    sentences = (
        f"my GPR1200, my ZS IN-A: {', '.join(reasons)}; not to be compared with published numbers.",
        "COCO was not measured: there is no folder coco.",
    )
    assert all_caveats(compared.results) == [f"Note on base, mine: {sentence}" for sentence in sentences]
    for text in (as_markdown(compared), as_latex(compared)):
        assert all(f"Note on base, mine: {sentence}" in text for sentence in sentences)
    rows = list(csv.DictReader(io.StringIO(as_csv(compared))))
    assert [row["notes"] for row in rows] == [" ".join(sentences)] * 2


def test_results_as_in_the_paper_have_no_caveats() -> None:
    measured = [of_table1("base", 50), results("other", birds=20)]
    assert all_caveats(measured) == []
    assert "notes" not in as_csv(Comparison.of(measured)).splitlines()[0]
    with_paper = as_csv(Comparison.of([*measured, *paper_rows(measured)]))
    assert with_paper.splitlines()[0].endswith(",notes")
    assert with_paper.count("the mean of the numbers in it is 72.8") == 1
