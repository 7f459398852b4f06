"""The training loop that tuning and realignment share."""

from mcip.training.fit import CHECKPOINTS, TENSORBOARD, Fit, FitSettings, Group, Objective, fit
from mcip.training.order import EpochOrder

__all__ = ["CHECKPOINTS", "TENSORBOARD", "EpochOrder", "Fit", "FitSettings", "Group", "Objective", "fit"]
