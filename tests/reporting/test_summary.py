"""What the report says in short, and that its pages take all text as text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from mcip.reporting.comparison import Comparison
from mcip.reporting.page import page, table_html
from mcip.reporting.paper import paper_rows
from mcip.reporting.summary import cards, headline, recommendations
from mcip.reporting.templating import render
from mcip.reporting.words import METHOD_SENTENCES
from tests.reporting.factories import of_table1, results, three


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"birds": 60.0, "search": 44.0}, ("x gains 40.0 points over base in image-to-image", "text to image −16.0")),
        ({"birds": 15.0, "search": 60.0}, ("x loses 5.0 points against base in image-to-image", "text to image +0.0")),
        ({"birds": 20.01, "search": 60.0}, ("x equals base in image-to-image", "mean over all tasks +0.0")),
        ({"search": 70.0}, ("x gains 10.0 points over base over all 2 tasks", "")),
    ],
)
def test_headline_says_what_the_best_model_gains(second: dict[str, float], expected: tuple[str, str]) -> None:
    title, summary = headline(Comparison.of([results("base", birds=20, search=60), results("x", **second)]))
    assert title.startswith(expected[0])
    assert expected[1] in summary


def test_cards_show_groups_that_were_measured_and_no_others() -> None:
    measured = [of_table1("base", 50), of_table1("mine", 60)]
    shown = cards(Comparison.of([*measured, *paper_rows(measured)]))
    assert [(card.title, card.before, card.after, card.gain) for card in shown] == [
        ("Image to image", "50.0", "60.0", "+10.0"),
        ("Zero-shot", "50.0", "60.0", "+10.0"),
    ]


def test_a_group_that_only_one_of_the_two_has_shows_whose_number_it_is() -> None:
    shown = cards(Comparison.of([results("base", birds=20, names=40), results("x", birds=30, search=70)]))
    assert [(card.title, card.before, card.after, card.gain, card.model) for card in shown] == [
        ("Image to image", "20.0", "30.0", "+10.0", ""),
        ("Zero-shot", "40.0", "", "", "base"),
        ("Text to image", "", "70.0", "", "x"),
    ]


def test_the_model_to_take_follows_from_the_numbers() -> None:
    advice = {each.purpose: each for each in recommendations(Comparison.of(three()))}
    assert {purpose: recommended.models for purpose, recommended in advice.items()} == {
        "find images by an image": ["a&b"],
        "classify images by the names of classes alone": ["c_d"],
        "find images by a text": ["base", "c_d"],
        "all of these with one model": ["c_d"],
    }
    assert (advice["find images by an image"].value, advice["find images by an image"].baseline) == ("65.0", "25.0")
    assert recommendations(Comparison.of(three()[:1])) == []
    assert recommendations(Comparison.of([results("base", birds=20), results("x", names=40)])) == []


def test_the_page_explains_the_methods_and_the_columns_before_the_results() -> None:
    start = page(Comparison.of(three()), [], [], None).partition("<h2>Results</h2>")[0]
    for method, sentence in METHOD_SENTENCES.items():
        assert f"<dt>{method}</dt> <dd>{sentence}</dd>" in start
    for kind in ("Image to image", "Zero-shot", "Text to image"):
        assert kind in start
    assert "Which model to take" in start


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=20))
def test_names_are_text_in_html(name: str) -> None:
    evil = f"<script>{name}</script>\"' onload=x"
    text = table_html(Comparison.of([results("base", birds=20), results(evil, birds=30)]))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 1
    assert "&#34;&#39; onload=x" in text


def test_a_template_with_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        render("mcip.reporting", "page.html.j2", maker="x", summary="x")
