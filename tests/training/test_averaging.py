"""The moving average of the weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from mcip.core.errors import ArtefactError, ConfigError
from mcip.training.averaging import WeightAverage


def test_it_is_the_average_of_the_formula() -> None:
    weights, count = torch.tensor([1.0, 2.0]), torch.tensor(0)
    average = WeightAverage({"w": weights, "count": count}, decay=0.5)
    naive = weights.clone()
    for step in range(1, 20):
        weights += step
        count += 1
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        naive = decay * naive + (1 - decay) * weights
        torch.testing.assert_close(average.tensors["w"], naive)
        assert average.tensors["count"] == step


def test_it_is_exchanged_for_a_block_even_where_the_block_fails() -> None:
    weights = torch.tensor([1.0])
    average = WeightAverage({"w": weights}, decay=0.9)
    weights.fill_(3.0)
    shown = []
    with contextlib.suppress(ValueError), average.applied():
        shown.append(weights.item())
        raise ValueError
    assert shown == [1.0]
    assert weights.item() == 3.0
    assert average.tensors["w"].item() == 1.0


def test_it_resumes_exactly() -> None:
    weights = torch.tensor([1.0])
    whole = WeightAverage({"w": weights}, decay=0.9)
    for value in (2.0, 5.0):
        weights.fill_(value)
        whole.update()
    again = WeightAverage({"w": weights}, decay=0.9)
    again.load_state_dict(whole.state_dict(), Path("checkpoints"))
    weights.fill_(7.0)
    whole.update()
    again.update()
    assert torch.equal(whole.tensors["w"], again.tensors["w"])
    with pytest.raises(ArtefactError, match="does not fit"):
        again.load_state_dict({"tensors": {}, "updates": 1}, Path("checkpoints"))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ConfigError, match="ema is"):
        WeightAverage({}, decay)
