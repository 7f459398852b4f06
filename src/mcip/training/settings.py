"""How the training loop trains, and how a run ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mcip.core.choices import OptimizerName, Precision, check_choice
from mcip.core.errors import ConfigError
from mcip.training.trackers import TENSORBOARD, tracker_names


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to train; the fields that are named like parameters of `mcip.tune` mean what they mean there."""

    steps: int
    warmup: int = 0
    min_lr_ratio: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    optimizer: OptimizerName = "adamw"
    max_grad_norm: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    max_loss_ratio: float = 4.0
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"
    checkpoint_every: int = 200
    validate_every: int = 0
    patience: int = 0
    select: str = "mean"
    log_every: int = 20
    unit: str = "images"
    per_step: int = 1
    title: str = "train"
    report_to: str = TENSORBOARD

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: One makes no sense.
        """
        if self.steps < 1:
            raise ConfigError(f"There are {self.steps} steps to train: ask for at least 1.")
        steps = "it is a number of steps, 0 or more"
        ranges = {
            "checkpoint_every": (self.checkpoint_every >= 1, "it is a number of steps, 1 or more"),
            "accumulate": (self.accumulate >= 1, "it is a number of parts, 1 or more"),
            "warmup": (self.warmup >= 0, steps),
            "validate_every": (self.validate_every >= 0, steps),
            "patience": (self.patience >= 0, "it is a number of validations, 0 or more"),
            "min_lr_ratio": (0 <= self.min_lr_ratio <= 1, "it is a share, from 0 to 1"),
            "max_grad_norm": (self.max_grad_norm > 0, "it is a norm above 0; inf lets every gradient pass"),
            "seed": (self.seed >= 0, "it is 0 or more"),
        }
        for name, (fits, what) in ranges.items():
            if not fits:
                raise ConfigError(f"{name} is {getattr(self, name)}: {what}.")
        check_choice("optimizer", self.optimizer, OptimizerName)
        tracker_names(self.report_to)


@dataclass
class Fit:
    """How a training run ended.

    Attributes:
        steps: Steps that were made.
        best_step: The step whose weights were kept; the last one where nothing was validated.
        best_score: Its score, or None.
        validation: The validation scores by step.
    """

    steps: int = 0
    best_step: int = 0
    best_score: float | None = None
    validation: dict[str, dict[str, float]] = field(default_factory=dict)


def learning_rate_factor(step: int, steps: int, warmup: int, min_ratio: float) -> float:
    """Linear warm-up over `warmup` steps, then a half cosine from 1 to `min_ratio` at the end."""
    if step < warmup:
        return (step + 1) / warmup
    part = (step - warmup) / max(1, steps - warmup)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * part))
