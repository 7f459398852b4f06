"""Tensors in parts: what processes write is put together again, whoever reads it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcip.core.processes import Processes
from mcip.core.shards import SavedRows, part_like, put_together, rows_of_shard, separate


@given(st.integers(1, 20), st.integers(1, 5), st.data())
def test_rows_are_found_in_whichever_part_has_them(rows: int, count: int, data: st.DataObject) -> None:
    tensor = torch.arange(3.0 * rows).reshape(rows, 3)
    parts = [tensor[own.start : own.stop] for own in (rows_of_shard(rows, Processes(r, count)) for r in range(count))]
    saved = SavedRows(parts)
    assert (saved.shape, saved.dtype) == (tensor.shape, tensor.dtype)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    torch.testing.assert_close(saved.take(range(start, stop)), tensor[start:stop])
    torch.testing.assert_close(part_like(saved, tensor), tensor)


def test_what_is_not_sharded_stays_as_it_is() -> None:
    state = {"a": torch.ones(2), "b": [1, "two", {"c": torch.zeros(1)}], "d": (3.0, None)}
    parts: list[torch.Tensor] = []
    assert str(separate(state, parts)) == str(put_together(state, [])) == str(state)
    assert parts == []


def test_places_are_those_of_every_process() -> None:
    state = {"weights": {"x": {"sharded tensor": 1}, "y": {"sharded tensor": 0}}}
    found = put_together(state, [[torch.zeros(1), torch.ones(2, 4)], [torch.zeros(0), torch.ones(1, 4)]])
    assert found["weights"]["x"].shape == (3, 4)
    assert found["weights"]["y"].shape == (1,)
    with pytest.raises(IndexError):
        put_together({"x": {"sharded tensor": 2}}, [[torch.zeros(1)]])
