"""The training loop that tuning and realignment share.

Everything is imported at first use: the order of the rows needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcip.core.lazy import lazy_names

if TYPE_CHECKING:
    from mcip.training.loop import CHECKPOINTS, LOGS, fit
    from mcip.training.objective import Group, Objective
    from mcip.training.order import EpochOrder
    from mcip.training.settings import Fit, FitSettings
    from mcip.training.trackers import TENSORBOARD

__all__ = ["CHECKPOINTS", "LOGS", "TENSORBOARD", "EpochOrder", "Fit", "FitSettings", "Group", "Objective", "fit"]

__getattr__ = lazy_names(
    __name__,
    {
        "CHECKPOINTS": "loop",
        "EpochOrder": "order",
        "Fit": "settings",
        "FitSettings": "settings",
        "Group": "objective",
        "LOGS": "loop",
        "Objective": "objective",
        "TENSORBOARD": "trackers",
        "fit": "loop",
    },
)
