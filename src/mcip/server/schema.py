"""What the API takes and returns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mcip.core.choices import Fusion
from mcip.retrieval.filter_parser import MAX_LENGTH
from mcip.server.settings import BALANCE, MAX_DEPTH, MAX_ID, MAX_PARTS, MAX_TEXT

# A zero byte ends a string in many places below.
_CLEAN = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT, strip_whitespace=True, pattern=_CLEAN)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID, pattern=_CLEAN)]
# A chance or a number; which of them are, `mcip.retrieval.score_calibration` says.
MinScore = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=_CLEAN)]
Where = Annotated[str, StringConstraints(max_length=MAX_LENGTH, pattern=_CLEAN)]


class SearchRequest(BaseModel):
    """A query. Without texts, ids and images it is answered with the images in the order in which they were indexed."""

    model_config = ConfigDict(extra="forbid")

    text: list[Text] = Field(default=[], max_length=MAX_PARTS, description="What the images shall show.")
    id: list[Id] = Field(default=[], max_length=MAX_PARTS, description="IDs of indexed images to use as query images.")
    negative: list[Text] = Field(default=[], max_length=MAX_PARTS, description="What the images shall not show.")
    negative_id: list[Id] = Field(
        default=[], max_length=MAX_PARTS, description="IDs of indexed images that results shall not be like."
    )
    weight: list[Annotated[float, Field(ge=0, le=1000)]] = Field(
        default=[],
        max_length=3 * MAX_PARTS,
        description="One for each uploaded image, then each id, then each text. With them, `balance` is not used.",
    )
    balance: float = Field(
        default=BALANCE,
        ge=0,
        le=1,
        description="In a query of images and texts: 0 looks for the images alone, 1 for the texts alone.",
    )
    where: Where | None = Field(
        default=None, description="A filter over the index's columns, such as `year > 2015 AND label = 'mug'`."
    )
    k: int = Field(default=24, ge=1, le=MAX_DEPTH, description="Images to return; `/about` says how many at most.")
    offset: int = Field(default=0, ge=0, le=MAX_DEPTH, description="Leave out this many of the best images.")
    exact: bool = Field(default=False, description="Compare with every image, whatever the index's size.")
    collapse: float | None = Field(
        default=None,
        gt=-1,
        le=1,
        description="Let one image stand for all within this cosine of it, such as 0.97 for those of a burst.",
    )
    min_score: MinScore | None = Field(
        default=None,
        description="Leave out what scores less: `1/1000` for the score that one in a thousand unrelated queries "
        "reaches, or a score.",
    )
    fusion: Fusion = Field(
        default="sum",
        description="How several parts become one score; by `product` and `basic` an image must fit the images and the "
        "texts of the query.",
    )


class ImageSearchRequest(SearchRequest):
    """A query with images that are not in the index."""

    image: list[UploadFile] = Field(default=[], max_length=MAX_PARTS, description="Files of query images.")
    negative_image: list[UploadFile] = Field(
        default=[], max_length=MAX_PARTS, description="Files of images that results shall not be like."
    )


class Hit(BaseModel):
    """One image."""

    id: str = Field(description="What `/image/{id}`, `/thumbnail/{id}` and `/similar/{id}` take.")
    score: float | None = Field(
        description="How well it fits: the cosine to a query of one part; of several, the standard deviations of the "
        "query's scores above the average image; null where nothing was looked for."
    )
    width: int | None = Field(description="Pixels.")
    height: int | None = Field(description="Pixels.")
    metadata: dict[str, Any] = Field(description="The other columns of the index.")
    others: list[Hit] = Field(
        default=[], description="With `collapse`, the images that this one stands for, best first."
    )


class Answer(BaseModel):
    """Images in descending order of score."""

    hits: list[Hit]
    next_offset: int | None = Field(description="The `offset` of the next page; null where there is none.")
    version: int = Field(description="The version of the index that was searched.")
    line: float | None = Field(
        description="The score that one in a thousand unrelated queries reaches: images below it match no better than "
        "for those. Null where that is not known."
    )


class Column(BaseModel):
    """A column that a filter may use."""

    name: str
    type: str


class About(BaseModel):
    """What is served, and within which limits."""

    images: int
    version: int = Field(description="Of the index.")
    model: str = Field(description="The name of the index's model, without its place.")
    fingerprint: str = Field(description="Of the model's weights.")
    columns: list[Column]
    max_k: int
    max_depth: int = Field(description="`offset` + `k` at most.")
    max_parts: int = Field(description="Texts, ids or images of each kind in a query.")
    max_upload: int = Field(description="Bytes of a request.")
    max_pixels: int = Field(description="Pixels of an uploaded image.")


class Health(BaseModel):
    """Whether the server can answer."""

    status: Literal["loading", "ready"]
    problem: str | None = Field(
        default=None, description="What is wrong with the newest version of the index, if it is not served."
    )


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


class Login(BaseModel):
    """The token, once, for a browser."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=MAX_TEXT)
