"""A small objective for tests of the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mcip.training import FitSettings, Group


class Toy:
    """Two weights that are pulled to the mean of drawn numbers, in two groups."""

    split: tuple[str, ...] = ()

    def __init__(self, scores: list[float] | None = None, factor: float = 1.0, dropout: float = 0.0) -> None:
        self.first, self.second = nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.second.weight.fill_(-1.0)
        self.modules: dict[str, nn.Module] = {"first": self.first, "second": self.second}
        self.groups = [
            Group("first", list(self.first.parameters()), 0.1, 0.0),
            Group("second", list(self.second.parameters()), 1.0, 0.5),
        ]
        self.tensors = {"first": self.first.weight.detach(), "second": self.second.weight.detach()}
        self.unreadable: dict[str, str] = {}
        self.scores, self.factor, self.dropout = scores, factor, dropout
        self.trained_batches: list[int] = []
        self.norms: list[list[float]] = []
        self.empty: set[int] = set()

    def batches(self, steps: range) -> Iterator[int]:
        yield from steps

    def losses(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.trained_batches.append(batch)
        self.unreadable[f"image {batch}"] = "truncated"
        if batch in self.empty:
            return {}
        inputs = torch.nn.functional.dropout(torch.rand(3, 4, generator=generator), self.dropout)
        out = self.modules["first"](inputs) - self.modules["second"](inputs)
        return {"loss": self.factor * (out - 5).square().mean(), "spread": out.std()}

    def after_step(self) -> None:
        pass

    def validate(self) -> dict[str, float]:
        assert not self.first.training
        return {"a": self.scores.pop(0), "b": 0.5} if self.scores else {}


def settings(**changes: Any) -> FitSettings:
    """Ten short steps on the CPU, with these changes."""
    return FitSettings(**{"steps": 10, "device": "cpu", "precision": "fp32", "log_every": 2, **changes})


class KilledError(Exception):
    """What stops a run in a test."""


def stop_at(toy: Toy, step: int) -> None:
    """Let a run of `toy` fail at a step."""
    losses = toy.losses

    def stopping(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if batch == step:
            raise KilledError
        return losses(batch, generator)

    toy.losses = stopping  # type: ignore[method-assign]
