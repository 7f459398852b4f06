"""Results: a sequence, JSON, a frame, a table, images in a notebook; and what the command and the function return."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mcip.core.errors import ConfigError
from mcip.data import decode
from mcip.retrieval.index import Index
from mcip.retrieval.results import Hit, Results
from mcip.stages.search import search

Run = Callable[..., Index]


def test_results_are_a_frozen_sequence() -> None:
    hit = Hit("a", 0.5, "a.jpg", 1, 2, {})
    results = Results((hit, hit))
    with pytest.raises(FrozenInstanceError):
        hit.score = 1  # type: ignore[misc]
    assert (results[0], results[:1], len(results), list(results)) == (hit, (hit,), 2, [hit, hit])
    assert hit in results
    assert isinstance(results, Sequence)


def test_results_as_json_list_and_frame() -> None:
    facts = {"when": np.datetime64("2020-01-02"), "price": float("nan"), "tags": ("x",), "score": 3}
    results = Results((Hit("a", 0.5, "a.jpg", 1, 2, facts), Hit("b", 0.25, "b.jpg", 3, 4, {"when": None})))
    (first, _) = json.loads(results.to_json())["hits"]
    assert first == {
        "id": "a", "score": 0.5, "path": "a.jpg", "width": 1, "height": 2,
        "metadata": {"when": "2020-01-02", "price": None, "tags": ["x"], "score": 3}, "others": [],
    }  # fmt: skip
    assert results.to_list()[0]["metadata"]["when"] == np.datetime64("2020-01-02")
    frame = results.to_pandas()
    assert list(frame.columns) == ["id", "score", "path", "width", "height", "when", "price", "tags", "source_score"]
    assert frame["score"].tolist() == [0.5, 0.25]
    assert frame["id"].tolist() == ["a", "b"]
    assert list(Results(()).to_pandas().columns) == ["id", "score", "path", "width", "height"]


def shown(results: Results, width: int = 200) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(results)
    return file.getvalue()


def test_results_are_shown_as_a_table_of_plain_text() -> None:
    odd = "mk[/bold]d [red]x[/red]\nsecond \x1b[31mline"
    text = shown(Results((Hit(odd, 0.5, "a.jpg", 1, 2, {"[b]t": odd, "none": None}),)))
    assert "mk[/bold]d [red]x[/red]\\nsecond \\x1b[31mline" in text
    assert text.count("mk[/bold]d [red]x[/red]") == 2
    assert "\x1b" not in text
    assert "[b]t" in text
    assert "none" not in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_score_id_and_size_are_shown_however_narrow_the_terminal(width: int) -> None:
    metadata = {"label": "a red mug", "captions": ["word " * 30, "more"], "year": 2024, "shape": "mug", "price": 1.5}
    hits = tuple(Hit(f"shop/aisle-{n}/mug.jpg", 0.5, "a.jpg", 640, 480, metadata) for n in range(3))
    text = shown(Results(hits, line=0.6), width)
    assert max(map(len, text.splitlines())) <= width
    unfolded = "".join(text.split())
    for n in range(3):
        assert f"aisle-{n}" in unfolded
    assert text.count("0.500") == text.count("640 x 480") == 3
    # A column is there with its values, or is named below the table.
    for name, value in {"label": "a red mug", "year": "2024", "shape": "mug", "price": "1.5"}.items():
        head, _, below = text.partition("no room here for")
        assert (name in head and value in head) or name in below
    assert ("no room here for" in text) == (width < 120)


def test_results_in_a_notebook(run_index: Run, own_album: Path) -> None:
    first, second = sorted(own_album.glob("*.jpg"))[:2]
    first.rename(own_album / "<b>&.jpg")
    index = run_index()
    second.unlink()
    html = index.search(text="blue", k=100)._repr_html_()
    assert html.count("data:image/jpeg;base64,") == 35
    assert html.count("cannot be read") == 1
    assert "&lt;b&gt;&amp;.jpg" in html
    assert "<b>" not in html
    assert Results(())._repr_html_()


def test_the_command_and_the_function(
    indexed: Path, album: Path, index: Index, tmp_path: Path, names: list[str]
) -> None:
    path, db = str(album / names[0]), str(indexed)
    expected = index.search(image=path, text="blue", k=3)
    assert search(db, ["blue", path], k=3, device="cpu") == expected
    assert search(index, [decode(path), "blue"], k=3) == expected
    assert search(index, "blue", image=album / names[0], k=3) == expected
    assert search(db, ["blue", path], k=3, output="json", device="cpu") == expected.to_json()
    paths = search(db, image=[path], text=["blue"], k=3, output="paths", device="cpu")
    assert str(paths).splitlines() == [hit.path for hit in expected]
    table = shown(search(index, [path], k=3))  # type: ignore[arg-type]
    assert all(word in table for word in ("score", names[0], "64 x 64", "1.000"))
    search(index, "blue", k=7, sheet=tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image_file:
        assert (image_file.format, image_file.size) == ("PNG", (8 + 5 * 200, 8 + 2 * 232))
        colours = {image_file.getpixel((8 + 96 + 200 * n, 8 + 96)) for n in range(5)}
    assert (255, 255, 255) not in colours
    with pytest.raises(ConfigError, match=r"s\.txt"):
        search(index, "blue", sheet=tmp_path / "s.txt")
    with pytest.raises(ConfigError, match="output is 'html': it is one of table, json, paths"):
        search(index, "blue", output="html")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is open already"):
        search(index, "blue", model="toyshop")
