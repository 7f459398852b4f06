"""The losses of the method: class centers with a margin, captions with a margin, and InfoNCE for the re-alignment."""

from mcip.losses.arc_margin import ArcMargin, apply_margin
from mcip.losses.contrastive import bound_logit_scale, info_nce
from mcip.losses.multi_caption import MultiCaptionArcMargin
from mcip.losses.sharded_arc_margin import ShardedArcMargin

__all__ = ["ArcMargin", "MultiCaptionArcMargin", "ShardedArcMargin", "apply_margin", "bound_logit_scale", "info_nce"]
