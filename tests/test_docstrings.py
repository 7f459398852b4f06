"""Examples in docstrings run, in a folder with the files that they name. What takes long or a network is marked."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mcip
from mcip.losses import ArcMargin, MultiCaptionArcMargin
from mcip.retrieval.index import Index
from mcip.toyshop.tables import Slice, draw_product, write_slice
from mcip.training import fit
from mcip.training.objectives import ContrastivePretraining, ImageTuning, TextAlignment

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(mcip.__path__, "mcip.") if not module.name.endswith(".__main__")
)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples_of(module: str) -> list[doctest.DocTest]:
    """The docstrings of a module that have examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [found for found in finder.find(importlib.import_module(module)) if found.examples]


EXAMPLES = [found for module in MODULES for found in examples_of(module)]


class Checker(doctest.OutputChecker):
    """An example that states no output only has to run."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder in which examples run, with images, tables and an index, and the names that examples do not make."""
    folder = tmp_path_factory.mktemp("docstrings")
    for number in range(3):
        for row in draw_product(Slice("docs", stream=90, products=3, images=2), number):
            image = folder / "photos" / f"toy-{number}" / f"{row['id']}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(row["image"]["bytes"])
    for name in ("mug.jpg", "large.png"):
        Image.new("RGB", (96, 64), "crimson").save(folder / name)
    write_slice(Slice("test", stream=91, products=3, images=2, captions=1), folder / "test.parquet")
    (folder / "captions.txt").write_text("a red toy\na blue mug\na toy on grass\n", encoding="utf-8")
    index = mcip.index(folder / "photos", folder / "photos.lance", model="toyshop").index
    return folder, {"mcip": mcip, "Path": Path, "index": index, "table": mcip.read_table(folder / "photos")}


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_the_example_runs(
    example: doctest.DocTest, files: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = files
    monkeypatch.chdir(folder)
    example.globs = {**example.globs, **names}
    messages: list[str] = []
    failed, _ = doctest.DocTestRunner(Checker(), optionflags=OPTIONS).run(example, out=messages.append)
    assert not failed, "".join(messages)


PUBLIC = [
    *(getattr(mcip, name) for name in mcip.__all__ if callable(getattr(mcip, name))),
    ArcMargin, MultiCaptionArcMargin, ContrastivePretraining, ImageTuning, TextAlignment, fit, Index.search,
]  # fmt: skip


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: item.__qualname__)
def test_what_is_public_shows_how_it_is_used(item: Any) -> None:
    assert "Example:" in (item.__doc__ or "")
    assert doctest.DocTestParser().get_examples(item.__doc__)


def test_a_wrong_output_fails() -> None:
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(Checker()).run(example, out=lambda message: None).failed == 1
