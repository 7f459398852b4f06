"""What the API takes and returns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mcip.retrieval.filter_parser import MAX_LENGTH
from mcip.server.settings import BALANCE, MAX_DEPTH, MAX_PARTS, MAX_TEXT

# A zero byte ends a string in many places below.
_CLEAN = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT, strip_whitespace=True, pattern=_CLEAN)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT, pattern=_CLEAN)]


class Ask(BaseModel):
    """A query. Without texts, ids and pictures it is answered with the pictures as they were indexed."""

    model_config = ConfigDict(extra="forbid")

    text: list[Text] = Field(default=[], max_length=MAX_PARTS, description="What the pictures shall show.")
    id: list[Id] = Field(
        default=[], max_length=MAX_PARTS, description="Pictures of the index like which the pictures shall look."
    )
    negative: list[Text] = Field(default=[], max_length=MAX_PARTS, description="Texts to get away from.")
    negative_id: list[Id] = Field(
        default=[], max_length=MAX_PARTS, description="Pictures of the index to get away from."
    )
    weight: list[Annotated[float, Field(ge=0, le=1000)]] = Field(
        default=[],
        max_length=3 * MAX_PARTS,
        description="One for each uploaded picture, then each id, then each text. With them, `balance` is not used.",
    )
    balance: float = Field(
        default=BALANCE,
        ge=0,
        le=1,
        description="Where there are pictures and texts: 0 looks for the pictures alone, 1 for the texts alone.",
    )
    where: str | None = Field(
        default=None,
        max_length=MAX_LENGTH,
        pattern=_CLEAN,
        description="An SQL condition over the index's columns, such as `year > 2015 AND label = 'mug'`.",
    )
    k: int = Field(default=24, ge=1, le=MAX_DEPTH, description="Pictures to find; `/about` says how many at most.")
    offset: int = Field(default=0, ge=0, le=MAX_DEPTH, description="Leave out this many of the best pictures.")
    exact: bool = Field(default=False, description="Compare with every picture, whatever the index's size.")


class SearchByImages(Ask):
    """A query with pictures that are not in the index."""

    image: list[UploadFile] = Field(
        default=[], max_length=MAX_PARTS, description="Files of pictures like which the pictures shall look."
    )
    negative_image: list[UploadFile] = Field(
        default=[], max_length=MAX_PARTS, description="Files of pictures to get away from."
    )


class Found(BaseModel):
    """One picture."""

    id: str = Field(description="What `/image/{id}`, `/thumbnail/{id}` and `/similar/{id}` take.")
    score: float | None = Field(
        description="How well it fits: the cosine to a query of one part, the combined score of one of several; null "
        "where nothing was looked for."
    )
    width: int | None = Field(description="Pixels.")
    height: int | None = Field(description="Pixels.")
    metadata: dict[str, Any] = Field(description="The other columns of the index.")


class Answer(BaseModel):
    """Pictures by falling score."""

    hits: list[Found]
    next_offset: int | None = Field(description="The `offset` of the next page; null where there is none.")
    version: int = Field(description="The version of the table that was searched.")


class Column(BaseModel):
    """A column that a filter may use."""

    name: str
    type: str


class About(BaseModel):
    """What is served, and what may be asked of it."""

    pictures: int
    version: int = Field(description="Of the table.")
    model: str = Field(description="The name of the index's model, without its place.")
    fingerprint: str = Field(description="Of the model's weights.")
    columns: list[Column]
    max_k: int
    max_depth: int = Field(description="`offset` + `k` at most.")
    max_parts: int = Field(description="Texts, ids or pictures of each kind in a query.")
    max_upload: int = Field(description="Bytes of a request.")
    max_pixels: int = Field(description="Pixels of an uploaded picture.")


class Health(BaseModel):
    """Whether the server can answer."""

    status: Literal["loading", "ready"]
    problem: str | None = Field(
        default=None, description="Why the newest version of the table is not served, if it is not."
    )


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


class Login(BaseModel):
    """The token, once, for a browser."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=MAX_TEXT)
