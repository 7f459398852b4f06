"""The exponential moving average of the weights in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcip.core.errors import ConfigError
from mcip.core.shards import is_sharded
from mcip.training.checkpoint import copy_into


class WeightAverage:
    """Keeps average <- d average + (1 - d) weights after each step, in memory of its own.

    At step t, counted from 1, d is the smaller of `decay` and (1 + t) / (10 + t), so that the average of a short run
    is not that of the weights before it.

    Attributes:
        tensors: The average, by name; of tensors that are no floating-point numbers, the latest.
        updates: How many steps it averages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """Start from the weights as they are.

        Args:
            tensors: What is averaged; training changes it in place.
            decay: From 0 to below 1; 0.999 averages over about 1,000 steps.

        Raises:
            ConfigError: The decay is out of range, or a tensor lies in shards.
        """
        if any(map(is_sharded, tensors.values())):
            raise ConfigError("ema cannot average weights or class centers in shards: leave it out.")
        if not 0 <= decay < 1:
            raise ConfigError(f"ema is {decay}: it is 0, for none, or a decay below 1 such as 0.999.")
        self.decay, self.updates, self._trained = decay, 0, tensors
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        floats = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        averages = [self.tensors[name] for name in floats]
        torch._foreach_lerp_(averages, [self._trained[name].detach() for name in floats], 1 - decay)
        for name in self.tensors.keys() - set(floats):
            self.tensors[name].copy_(self._trained[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the weights for their average for the length of a block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, average in self.tensors.items():
            weights = self._trained[name].clone()
            self._trained[name].copy_(average)
            average.copy_(weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"tensors": self.tensors, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Resume from what a checkpoint kept.

        Raises:
            ArtefactError: It does not fit the weights.
        """
        copy_into(self.tensors, state["tensors"], source)
        self.updates = int(state["updates"])
