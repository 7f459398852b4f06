"""Tools by which a program that speaks the Model Context Protocol searches an index. They only read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import numpy as np
from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from numpy.typing import NDArray
from pydantic import Field

from mcip.core.choices import Fusion
from mcip.core.errors import DataError, McipError, UnreadableImage
from mcip.retrieval.ann.calibrate import Kind
from mcip.retrieval.filters import compile_filter
from mcip.retrieval.fusion import weighted
from mcip.retrieval.index import Index
from mcip.retrieval.query import NEGATIVE_WEIGHT
from mcip.retrieval.results import Hit, Results, plain
from mcip.server.schema import Id, MinScore, Text, Where
from mcip.server.settings import MAX_PARTS

_READ_ONLY: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_MAX_K: Final = 100

Count = Annotated[int, Field(ge=1, le=_MAX_K, description="Images to return.")]
Filter = Annotated[Where | None, Field(description="A filter over the index's columns, such as `year > 2015`.")]
Least = Annotated[
    MinScore | None,
    Field(
        description="Leave out what scores less: `1/1000` for the score that only one in a thousand unrelated queries "
        "reaches, so that a query which nothing matches returns nothing; or a score."
    ),
]
How = Annotated[
    Fusion,
    Field(description="How several parts become one score; by product and basic, images must fit images and texts."),
]
OneId = Annotated[Id, Field(description="The id of an image of the index.")]


def mcp_server(index: Index, paths: bool = False) -> MCPServer[Any]:
    """A server with the tools `search`, `similar` and `show`.

    Args:
        index: What is searched. Each call first looks for a newer version of it.
        paths: Tell clients where the images lie, and let them filter by it.
    """
    columns = [name for name in index.columns if paths or name != "path"]
    server: MCPServer[Any] = MCPServer(
        "mcip",
        instructions=(
            f"Searches {len(index):,} images by what they show, and by their likeness to each other. "
            f"Columns for filters: {', '.join(columns)}."
        ),
        log_level="WARNING",
    )

    @contextlib.contextmanager
    def answering(where: str | None = None) -> Iterator[None]:
        """Errors without the paths that their messages name, and filters by the columns that clients may see."""
        try:
            index.refresh()
            if where and where.strip():
                compile_filter(where, index.engine.table.schema, columns)
            yield
        except DataError as error:
            raise ToolError("The index holds no image with this id.") from error
        except UnreadableImage as error:
            raise ToolError("The image's file is gone, has changed since it was indexed, or is damaged.") from error
        except McipError as error:
            raise ToolError(str(error)) from error

    def as_answer(results: Results) -> dict[str, Any]:
        return {"images": [_described(hit, paths) for hit in results], "line": results.line}

    @server.tool(annotations=_READ_ONLY)
    def search(
        text: Annotated[list[Text], Field(max_length=MAX_PARTS, description="What the images shall show.")] = [],  # noqa: B006
        like: Annotated[
            list[Id], Field(max_length=MAX_PARTS, description="Ids of indexed images that they shall be like.")
        ] = [],  # noqa: B006
        unlike: Annotated[list[Text], Field(max_length=MAX_PARTS, description="What they shall not show.")] = [],  # noqa: B006
        where: Filter = None,
        k: Count = 10,
        min_score: Least = None,
        fusion: How = "sum",
    ) -> dict[str, Any]:
        """Find images by texts, by images of the index, or by both; without either, list images in their order.

        One in a thousand unrelated queries reaches the score `line`; images below it match no better than for those.
        """
        with answering(where):
            if not (text or like or unlike):
                return as_answer(index.browse(k, where=where))
            meant = [*text, *unlike]
            vectors: Sequence[NDArray[np.float32]] = list(index.encode_texts(meant)) if meant else []
            # Not by `Index.search`, which takes a text that names an image file for that file.
            negatives: list[tuple[NDArray[np.float32], Kind]] = [(vector, "text") for vector in vectors[len(text) :]]
            liked = [index.vector(id) for id in like]
            parts = weighted(liked, vectors[: len(text)], negatives, None, NEGATIVE_WEIGHT)
            return as_answer(index.snapshot().search_parts(parts, k, 0, where, min_score=min_score, fusion=fusion))

    @server.tool(annotations=_READ_ONLY)
    def similar(id: OneId, where: Filter = None, k: Count = 10, min_score: Least = None) -> dict[str, Any]:
        """Find the images that are most like one image of the index."""
        with answering(where):
            return as_answer(index.similar(id, k, where, min_score=min_score))

    @server.tool(annotations=_READ_ONLY)
    def show(id: OneId) -> Image:
        """Look at an image of the index, in small."""
        with answering():
            return Image(data=index.snapshot().small_image(id), format="jpeg")

    return server


def _described(hit: Hit, paths: bool) -> dict[str, Any]:
    facts = {"id": hit.id, "score": round(hit.score, 4), "width": hit.width, "height": hit.height}
    shown = {name: plain(value) for name, value in hit.metadata.items() if value is not None}
    return {**facts, **({"path": hit.path} if paths else {}), "metadata": shown}
