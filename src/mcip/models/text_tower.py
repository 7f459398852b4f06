"""A model's text tower without the padding behind the texts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

# Lengths are multiples of this, which suits matrix units and keeps the number of shapes small.
_STEP = 8


class TextTower(nn.Module):
    """Encodes tokens as `clip.encode_text` does, up to the longest text of a batch where what follows changes nothing.

    That is so where each token sees only those before it and the feature is taken at the end of the text, as in CLIP:
    captions then take a fraction of the time that the whole context length takes. Other towers, such as SigLIP's,
    encode the whole context length. Values and gradients are the same up to rounding.
    """

    def __init__(self, clip: Any) -> None:
        """Wrap open_clip's `CLIP` or `CustomTextCLIP`."""
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor, shorten: bool = True) -> Tensor:
        """Encode tokens.

        Args:
            tokens: int64 (T, context length).
            shorten: Whether padding may be left out.

        Returns:
            Features (T, D), not normalised.
        """
        tower, prefix = (self.clip.text, "clip.text.") if hasattr(self.clip, "text") else (self.clip, "clip.")
        if shorten and len(tokens) and _looks_back_only(tower):
            # The end of the text has the highest number of all tokens.
            longest = int(tokens.argmax(dim=1).max()) + 1
            length = -(-longest // _STEP) * _STEP
            if length < tokens.shape[1]:
                own = {
                    f"{prefix}positional_embedding": tower.positional_embedding[:length],
                    f"{prefix}attn_mask": tower.attn_mask[:length, :length],
                }
                shortened: Tensor = functional_call(self, own, (tokens[:, :length], False))
                return shortened
        features: Tensor = self.clip.encode_text(tokens)
        return features


def _looks_back_only(tower: Any) -> bool:
    """Whether a token's feature depends on the tokens before it alone, and a text's feature is that of its end."""
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    other = getattr(tower, "use_pad_mask", False) or getattr(tower, "cls_emb", None) is not None
    return pool == "argmax" and not other and getattr(tower, "attn_mask", None) is not None
