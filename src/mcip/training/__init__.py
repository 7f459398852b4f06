"""The training loop that tuning and realignment share."""

from mcip.training.log import METRICS, TENSORBOARD
from mcip.training.loop import CHECKPOINTS, fit
from mcip.training.objective import Group, Objective
from mcip.training.order import EpochOrder
from mcip.training.settings import Fit, FitSettings

# What a run's folder holds beside its result: how it went, which differs from run to run.
LOGS = (CHECKPOINTS, METRICS, TENSORBOARD)

__all__ = ["CHECKPOINTS", "LOGS", "TENSORBOARD", "EpochOrder", "Fit", "FitSettings", "Group", "Objective", "fit"]
