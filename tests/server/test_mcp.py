"""The Model Context Protocol server, through the protocol's own client in memory and over standard input and output."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from PIL import Image

from mcip.retrieval.index import Index, open_index
from mcip.server.mcp_tools import mcp_server
from mcip.stages.index import index as build_index

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def index(served: Path) -> Index:
    return open_index(served, device="cpu")


def call(index: Index, tool: str, paths: bool = False, **arguments: Any) -> Any:
    async def answer() -> Any:
        async with Client(mcp_server(index, paths)) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(answer())


def images(result: Any) -> list[dict[str, Any]]:
    assert not result.is_error, result.content
    found: list[dict[str, Any]] = json.loads(result.content[0].text)["images"]
    return found


def test_search_answers_as_the_index_does(index: Index) -> None:
    found = images(call(index, "search", text=["a red mug"], where="label is not null", k=4))
    expected = index.search(text="a red mug", where="label is not null", k=4)
    assert [image["id"] for image in found] == [hit.id for hit in expected]
    assert [image["score"] for image in found] == pytest.approx([hit.score for hit in expected], abs=1e-4)
    assert found[0]["metadata"]["label"] == expected[0].metadata["label"]


def test_texts_and_images_mix_with_what_is_not_meant(index: Index) -> None:
    id = index.browse(1)[0].id
    found = images(call(index, "search", text=["a red mug"], like=[id], unlike=["a blue chair"], k=3))
    expected = index.search([f"id:{id}"], ["a red mug"], ["a blue chair"], k=3)
    assert [image["id"] for image in found] == [hit.id for hit in expected]


def test_a_text_that_names_a_file_stays_a_text(index: Index, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8), "red").save(secret)
    found = images(call(index, "search", text=["mug"], unlike=[str(secret)], k=2))
    secret.unlink()
    assert found == images(call(index, "search", text=["mug"], unlike=[str(secret)], k=2))


def test_without_a_query_images_are_listed_in_their_order(index: Index) -> None:
    assert [image["id"] for image in images(call(index, "search", k=3))] == [hit.id for hit in index.browse(3)]


def test_similar_leaves_the_image_itself_out(index: Index) -> None:
    id = index.browse(1)[0].id
    found = images(call(index, "similar", id=id, k=5))
    assert [image["id"] for image in found] == [hit.id for hit in index.similar(id, 5)]


@pytest.mark.parametrize("fusion", ["sum", "product", "basic"])
def test_what_matches_no_better_than_for_unrelated_queries_is_left_out(index: Index, fusion: Any) -> None:
    id = index.browse(1)[0].id
    query = {"text": ["a red mug"], "like": [id], "fusion": fusion, "k": 32}
    whole, above = (
        json.loads(call(index, "search", **query, min_score=least).content[0].text) for least in (None, "1/1000")
    )
    expected = index.search(f"id:{id}", "a red mug", k=32, fusion=fusion)
    assert [image["id"] for image in whole["images"]] == [hit.id for hit in expected]
    assert whole["line"] == expected.line
    matching = sum(hit.score >= whole["line"] for hit in expected)
    assert above["images"] == whole["images"][:matching]
    similar = images(call(index, "similar", id=id, k=32))
    assert images(call(index, "similar", id=id, k=32, min_score=str(similar[4]["score"] - 1e-4)))[:5] == similar[:5]
    assert images(call(index, "similar", id=id, min_score="2")) == []
    assert "write 1/1000" in call(index, "similar", id=id, min_score="often").content[0].text


def test_show_gives_a_small_image(index: Index) -> None:
    result = call(index, "show", id=index.browse(1)[0].id)
    picture = Image.open(io.BytesIO(base64.b64decode(result.content[0].data)))
    assert picture.format == "JPEG"
    assert max(picture.size) <= 256


def test_paths_are_told_only_where_asked_for(index: Index) -> None:
    assert all("path" not in image for image in images(call(index, "search", text=["mug"])))
    refused = call(index, "search", text=["mug"], where="path like '/%'")
    assert refused.is_error
    assert "path" in refused.content[0].text
    told = images(call(index, "search", paths=True, text=["mug"], where="path is not null"))
    assert told[0]["path"] == index.search(text="mug", k=1)[0].path


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("show", {"id": "no-such"}, "no image with this id"),
        ("similar", {"id": "no-such"}, "no image with this id"),
        ("search", {"text": ["x"], "k": 0}, "greater than or equal to 1"),
        ("search", {"text": ["x"], "k": 1_000_000}, "less than or equal to 100"),
        ("search", {"text": [""]}, "at least 1 character"),
        ("search", {"text": ["x"], "where": "length(repeat(label, 9)) > 1"}, "length"),
    ],
)
def test_what_cannot_be_answered_is_an_error_of_the_tool(
    index: Index, tool: str, arguments: dict[str, Any], message: str
) -> None:
    result = call(index, tool, **arguments)
    assert result.is_error
    assert message in result.content[0].text
    assert str(index.uri) not in result.content[0].text


def test_a_newer_version_is_searched(own_images: Path, base: Path, tmp_path: Path) -> None:
    db = tmp_path / "photos.lance"
    opened = open_index(db, model=str(base), device="cpu")
    assert len(images(call(opened, "search", k=100))) == 4
    shutil.copy(own_images / "0.png", own_images / "more.png")
    build_index(str(own_images), str(db), model=str(base), device="cpu")
    assert len(images(call(opened, "search", k=100))) == 5


def test_the_command_speaks_over_standard_input_and_output(served: Path, index: Index) -> None:
    async def talk() -> tuple[list[str], Any]:
        arguments = ["-m", "mcip", "mcp", str(served), "--device", "cpu"]
        command = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
        async with Client(stdio_client(command)) as client:
            tools = await client.list_tools()
            return [tool.name for tool in tools.tools], await client.call_tool(
                "search", {"text": ["a red mug"], "k": 1}
            )

    names, result = asyncio.run(talk())
    assert names == ["search", "similar", "show"]
    assert images(result)[0]["id"] == index.search(text="a red mug", k=1)[0].id
