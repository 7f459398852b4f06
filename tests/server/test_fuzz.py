"""The API keeps to its description, whatever it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from mcip.server.settings import Settings
from tests.server.live import TOKEN, running

OPERATIONS = [
    ("get", "/about"),
    ("get", "/facets"),
    ("get", "/healthz"),
    ("get", "/metrics"),
    ("get", "/image/{id}"),
    ("get", "/search"),
    ("get", "/similar/{id}"),
    ("get", "/thumbnail/{id}"),
    ("post", "/search"),
    ("post", "/session"),
]


@pytest.fixture(scope="module")
def described(served: Path) -> Iterator[Any]:
    """The description of a running server."""
    with running(served, Settings(token=TOKEN, max_upload=100_000)) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_operation_is_fuzzed(described: Any) -> None:
    assert sorted((one.ok().method, one.ok().path) for one in described.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_api(described: Any, method: str, path: str, mode: GenerationMode) -> None:
    operation = described[path][method]
    if mode is GenerationMode.NEGATIVE and path in ("/about", "/facets", "/healthz", "/metrics"):
        assert not operation.query
        assert not operation.body
        return

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def keeps_to_it(case: Any) -> None:
        # What makes a filter, or which ids there are, no description can say.
        case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=[checks.positive_data_acceptance]
        )

    keeps_to_it()
