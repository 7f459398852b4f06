"""Models: loaded by name, from a folder or with weights put on top; saved as a folder that open_clip loads itself."""

from mcip.models.loading import create, from_config, load
from mcip.models.model import Model
from mcip.models.saved import SavedModel, SavedWeights, save

__all__ = ["Model", "SavedModel", "SavedWeights", "create", "from_config", "load", "save"]
