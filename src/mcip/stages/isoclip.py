"""IsoCLIP: better image-to-image retrieval without training (Magistri et al., CVPR 2026)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcip.core.errors import ConfigError
from mcip.core.processes import check_one_process
from mcip.stages.inputs import ModelInput, open_model

if TYPE_CHECKING:
    from mcip.models import SavedModel


def isoclip(model: ModelInput, out: Path, *, strongest: int = 0, weakest: int = 0) -> SavedModel:
    """Write a model whose image projection keeps only the directions that images and texts share best.

    Nothing is trained, and the text tower stays as it is. Of the singular directions of W_image^T W_text the strongest
    carry what all images or all texts have in common, the weakest little of either; without them image to image often
    gains. How many to leave out is chosen on validation images: several pairs of numbers can be measured in minutes.

    Args:
        model: What `mcip.load` takes; its towers end in linear projections.
        out: The folder to write, which open_clip and every command load.
        strongest: How many of the strongest directions are left out.
        weakest: How many of the weakest, of as many as the embeddings have dimensions.

    Returns:
        The model folder; it stands for its path.

    Raises:
        ModelError: A tower does not end in a linear projection, or `out` is in the way.
        ConfigError: A number is below 0, or no direction would be left.

    Example:
        >>> import mcip, tempfile
        >>> mcip.isoclip("toyshop", tempfile.mkdtemp(), strongest=2, weakest=20).load().embed_dim
        256
    """
    check_one_process()
    from mcip.models import SavedModel, save
    from mcip.models.isoclip import keep_shared_directions, unused_directions

    changed = open_model(model)
    if strongest < 0 or weakest < 0 or strongest + weakest >= changed.embed_dim:
        raise ConfigError(
            f"strongest is {strongest} and weakest {weakest}: they are 0 or more, and fewer together than the "
            f"{changed.embed_dim} dimensions of the embeddings."
        )
    keep_shared_directions(changed, strongest, weakest + unused_directions(changed))
    facts = {"isoclip": changed.source, "strongest": strongest, "weakest": weakest}
    return SavedModel(save(changed, out, facts))
