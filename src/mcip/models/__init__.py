"""Models: loaded by name, from a folder or with weights put on top; saved as a folder that open_clip loads itself."""

from mcip.models.model import Model, create, from_config, load, save

__all__ = ["Model", "create", "from_config", "load", "save"]
