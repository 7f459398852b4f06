"""Search an index by images, by texts, or by both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mcip.core.choices import Backend, Fusion
from mcip.core.parameters import check_choices
from mcip.stages.inputs import IndexInput, ModelInput, as_index
from mcip.stages.search_server import Request, ask, ask_served

if TYPE_CHECKING:
    from mcip.retrieval.query import ImageLike
    from mcip.retrieval.results import Results

    PartsInput: TypeAlias = ImageLike | Sequence[ImageLike]
    TextsInput: TypeAlias = str | Sequence[str]
else:
    PartsInput = TextsInput = list[str]

Output: TypeAlias = Literal["table", "json", "paths"]


def search(
    db: IndexInput,
    query: PartsInput | None = None,
    *,
    image: PartsInput | None = None,
    text: TextsInput | None = None,
    negative: PartsInput | None = None,
    weights: list[float] | None = None,
    where: str | None = None,
    k: int = 10,
    offset: int = 0,
    output: Output = "table",
    sheet: Path | None = None,
    exact: bool = False,
    collapse: float | None = None,
    min_score: float | str | None = None,
    fusion: Fusion = "sum",
    model: ModelInput | None = None,
    device: str = "auto",
    backend: Backend = "auto",
    server: str = "auto",
) -> Results | str:
    """Find images of an index by images, by texts, or by both.

    Args:
        db: What `mcip index` made, or an opened index.
        query: Texts and images to look for; what names an image file, or is "id:" and an id of the index, is an image.
        image: More images to look for.
        text: More texts to look for.
        negative: Texts and images that results shall not be like.
        weights: One for each image to look for, then one for each text, in the order given.
        where: A filter over the index's columns, such as "taken >= '2024-06-01' and camera like 'Canon%'".
        k: Images to return.
        offset: Leave out this many of the best ones.
        output: A table, JSON for programs, or one path per line.
        sheet: Also draw the images into this file, .png or .jpg.
        exact: Compare with every image, whatever the index's size.
        collapse: Let one result stand for all within this cosine of it, such as 0.97 for the images of a burst.
        min_score: Leave out what scores less. 1/1000: the score that only one in a thousand unrelated queries reaches,
            which the index keeps for each kind of query; so a query that nothing matches returns nothing. A number
            without "1/" is a score as results have it.
        fusion: How several parts of a query become one score: "sum", or "product" or "basic", by which an image must
            fit the images and the texts of the query.
        model: The index's model, if it is not where the index says.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        backend: What embeds the query: "onnx", which starts without PyTorch, "torch", or "auto": the first where there
            is an ONNX model of the index's model, in the folder `onnx` of its folder or beside the index as
            `INDEX.onnx`. `mcip export MODEL INDEX.onnx --format onnx` makes it.
        server: The address of an `mcip serve` that answers in place of this process; INDEX is then only a name. "auto":
            one of the same user on this machine that serves INDEX, if it runs; it follows changes of the index within
            seconds. "none": no server. A token is read from the environment variable MCIP_TOKEN.

    Returns:
        The hits, shown as a table, and with their images in a notebook. JSON or paths as a text where `output` says so.

    Raises:
        ArtefactError: There is no index.
        ConfigError: There is nothing to look for, or a parameter is out of range.
        ModelError: The model is not the index's.
        ServerError: The server that is given does not answer.
        UnreadableImage: An image cannot be read.

    Example:
        >>> results = mcip.search("photos.lance", ["mug.jpg", "in red"], where="width > 500", k=5)
        >>> results.to_pandas()
    """
    check_choices(search, locals())
    here = {"sheet": sheet, "model": model, "device": device != "auto", "backend": backend != "auto"}
    request = Request(query, image, text, negative, weights, where, k, offset, exact, collapse, min_score, fusion)
    results: Results | None
    if server not in ("auto", "none"):
        results = ask(server, request, output, [name for name, given in here.items() if given])
    else:
        results = None if server == "none" or any(here.values()) else ask_served(db, request)
    if results is None:
        results = _search_here(db, request, sheet, model, device, backend)
    if output == "json":
        return results.to_json()
    return results.paths() if output == "paths" else results


def _search_here(
    db: IndexInput, request: Request, sheet: Path | None, model: ModelInput | None, device: str, backend: Backend
) -> Results:
    from mcip.retrieval.query import as_list, is_image

    index = as_index(db, model, device, backend)
    parts = as_list(request.query)
    images = [*(part for part in parts if is_image(part)), *as_list(request.image)]
    texts = [*(part for part in parts if not is_image(part)), *as_list(request.text)]
    results = index.search(
        images, texts, as_list(request.negative), request.weights, request.where, request.k, request.offset,
        exact=request.exact, collapse=request.collapse, min_score=request.min_score, fusion=request.fusion,
    )  # fmt: skip
    if sheet is not None:
        from mcip.retrieval.contact_sheet import contact_sheet

        contact_sheet(index, results, Path(sheet))
    return results
