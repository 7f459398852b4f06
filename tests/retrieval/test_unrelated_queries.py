"""What an index holds nothing of is not found: words that have nothing to do with its images."""

from __future__ import annotations

import json

import pytest

from mcip.retrieval.index import Index
from mcip.stages.index import index as build_index
from mcip.stages.search import search
from mcip.toyshop.tables import Slice, draw_product

TOYS = Slice("toys", stream=29, products=60, images=1, captions=1)
UNRELATED = ["zebra", "an invoice of an electricity company", "people in a meeting", "a quarterly report", "an airport"]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of drawn toys by the model that knows them."""
    root = tmp_path_factory.mktemp("toys")
    (root / "photos").mkdir()
    for number in range(TOYS.products):
        row = draw_product(TOYS, number)[0]
        (root / "photos" / f"{row['id']}.jpg").write_bytes(row["image"]["bytes"])
    return build_index(str(root / "photos"), str(root / "t.lance"), model="toyshop", device="cpu").index


def test_what_no_image_shows_is_not_found(toys: Index) -> None:
    for text in UNRELATED:
        assert len(toys.search(text=text)) == 10
        assert json.loads(str(search(toys, text, min_score="1/1000", output="json")))["hits"] == []
    found = 0
    for number in range(12):
        row = draw_product(TOYS, number)[0]
        found += f"{row['id']}.jpg" in [hit.id for hit in toys.search(text=row["captions"], min_score="1/20")]
    assert found >= 6


@pytest.mark.parametrize("rare", [20, 1000, 10**8])
def test_an_image_of_the_index_is_found_by_itself_however_alike_all_are(toys: Index, rare: int) -> None:
    for hit in toys.browse(20):
        assert toys.search(f"id:{hit.id}", min_score=f"1/{rare}")[0].id == hit.id
