"""Least scores and fusions in the API are those of the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mcip.data import read_table
from mcip.retrieval.index import Index
from tests.server.answers import expected, found, problem


@pytest.fixture(scope="module")
def index(served: Path) -> Index:
    return Index(served, device="cpu")


@pytest.mark.parametrize("query", [{"text": "a red mug"}, {"text": "blue", "id": "FIRST"}])
def test_what_does_not_match_is_left_out_and_the_line_told(
    client: TestClient, index: Index, train: Path, query: dict[str, str]
) -> None:
    query = {name: read_table(str(train)).ids[0] if value == "FIRST" else value for name, value in query.items()}
    whole = client.get("/search", params={**query, "k": 32}).json()
    kind = "mixed" if "id" in query else "text"
    assert whole["line"] == pytest.approx(index.engine.calibration.line(kind))
    for asked, least in (("1/1000", whole["line"]), ("1/2", index.engine.calibration.least("1/2", kind)), ("0.1", 0.1)):
        above = client.get("/search", params={**query, "k": 32, "min_score": asked}).json()["hits"]
        assert above == [hit for hit in whole["hits"] if hit["score"] >= least]
    assert "write 1/1000" in problem(client.get("/search", params={**query, "min_score": "often"}), 400)
    assert client.get("/search", params={"k": 2}).json()["line"] is None


@pytest.mark.parametrize("fusion", ["product", "basic"])
def test_fusions_are_those_of_the_index(client: TestClient, index: Index, train: Path, fusion: Any) -> None:
    first = read_table(str(train)).ids[0]
    query = {"text": "blue", "id": first, "fusion": fusion, "k": 32}
    answer = client.get("/search", params=query).json()
    assert found(answer) == expected(index.search(image="id:" + first, text="blue", k=32, fusion=fusion))
    above = client.get(
        "/search", params={"text": "blue", "id": first, "fusion": fusion, "k": 32, "min_score": "1/1000"}
    )
    assert above.json()["hits"] == [hit for hit in answer["hits"] if hit["score"] >= answer["line"]]
    assert client.get("/search", params={"text": "blue", "fusion": "other"}).status_code == 422
