"""Answers of the API beside those of the index."""

from __future__ import annotations

from typing import Any

import pytest


def found(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(hit["id"], pytest.approx(hit["score"], abs=1e-5)) for hit in answer["hits"]]


def expected(results: Any) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in results]


def problem(response: Any, status: int) -> str:
    """The sentence of an answer with this status; it says nothing of the server's inside."""
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    for inside in ("Traceback", "/src/", "/tmp", "site-packages", ".lance"):
        assert inside not in response.text
    return detail
