"""The values that the page offers as filters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from mcip.retrieval.facets import Facets
from mcip.server.service import Service


class ValueCount(BaseModel):
    """A value that several images have."""

    value: str
    count: int
    where: str = Field(description="The filter that leaves these images.")


class ColumnValues(BaseModel):
    """The most frequent values of a column."""

    name: str
    values: list[ValueCount]


class DateSpan(BaseModel):
    """The first and the last day in a column of dates."""

    name: str
    first: str
    last: str


class FacetsAnswer(BaseModel):
    """What can be filtered by without knowing a column's values: of the whole index, whatever is searched for."""

    columns: list[ColumnValues]
    dates: list[DateSpan]
    version: int = Field(description="The version of the index that was counted.")


def add_facets(guarded: APIRouter, service: Service, problems: Callable[..., dict[int | str, dict[str, Any]]]) -> None:
    """Add the route to an application's guarded ones."""

    @guarded.get("/facets", summary="Frequent values of the columns, with filters", responses=problems(503))
    async def facets() -> FacetsAnswer:
        current = service.current
        snapshot = current.index.snapshot()
        found = await asyncio.wait_for(service.call(lambda: snapshot.facets), service.settings.seconds)
        return _answer(found, set(current.filterable), snapshot.version)


def _answer(found: Facets, filterable: set[str], version: int) -> FacetsAnswer:
    columns = [
        ColumnValues(
            name=facet.column,
            values=[ValueCount(value=one.value, count=one.count, where=one.where) for one in facet.values],
        )
        for facet in found.columns
        if facet.column in filterable
    ]
    dates = [
        DateSpan(name=span.column, first=span.first, last=span.last)
        for span in found.spans
        if span.column in filterable
    ]
    return FacetsAnswer(columns=columns, dates=dates, version=version)
