"""How fast a machine is with a model, by a measurement of a moment: what the plan of `mcip improve` rests on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from mcip.core.choices import Precision
from mcip.core.device import autocast
from mcip.core.errors import UnreadableImage
from mcip.data import Table
from mcip.models import Model

# Images of a step of a tuning.
BATCH: Final = 64
# Seconds that a batch may take before a larger one is not timed: small ones take longer an image.
_MOMENT: Final = 0.25
# Of a matrix product that is timed.
_COLUMNS: Final = 8192


@dataclass(frozen=True)
class Speed:
    """How fast this machine is with a model.

    Attributes:
        read: Seconds to read an image.
        embed: Seconds to embed one.
        train: Seconds to train on one.
        multiply: Seconds of a multiplication and addition within a matrix product: that of the losses, by class or by
            caption, which may take longer than a small model.
    """

    read: float
    embed: float
    train: float
    multiply: float

    @classmethod
    def measure(
        cls, model: Model, table: Table, device: torch.device, precision: Precision = "auto", count: int = 8
    ) -> Speed:
        """Time a few images of the table, and batches as large as can be had in a moment, up to those of tunings."""
        transform = model.transform("model", train=True, decode="fast")
        rows = range(min(count, len(table)))

        def read() -> None:
            for row in rows:
                try:
                    transform(table.image(row))
                except UnreadableImage:
                    continue

        def embed(pixels: torch.Tensor) -> None:
            with autocast(device, precision), torch.inference_mode():
                model.embed_pixels(pixels)

        def train(pixels: torch.Tensor) -> None:
            with autocast(device, precision):
                loss = model.clip.encode_image(pixels).square().sum()
            loss.backward()
            model.clip.zero_grad(set_to_none=True)

        def per_image(action: Callable[[torch.Tensor], None]) -> float:
            images = torch.zeros(BATCH, 3, model.image_size, model.image_size, device=device)
            size = count
            while (seconds := _fastest(partial(action, images[:size]))) < _MOMENT and size < BATCH:
                size *= 2
            return seconds / size

        left = torch.zeros(4 * BATCH, model.embed_dim, device=device)
        right = torch.zeros(model.embed_dim, _COLUMNS, device=device)
        model.clip.to(device)
        speeds = [_fastest(read) / len(rows), per_image(embed), per_image(train)]
        speeds.append(_fastest(lambda: left @ right) / (left.numel() * _COLUMNS))
        model.clip.to("cpu")
        return cls(*speeds)


def _fastest(action: Callable[[], Any], times: int = 2) -> float:
    """The least of some times, in seconds; a first run warms up."""
    action()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)
