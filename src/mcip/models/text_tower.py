"""A model's text tower without the padding behind the texts."""

from __future__ import annotations

from typing import Any

from open_clip.transformer import text_global_pool
from torch import Tensor, nn

# Lengths are multiples of this, which suits matrix units and keeps the number of shapes small.
_STEP = 8


def padded_length(longest: int, context_length: int) -> int:
    """The length that texts of at most `longest` tokens are encoded at, where a tower takes fewer than its context."""
    return min(context_length, -(-longest // _STEP) * _STEP)


class TextTower(nn.Module):
    """Encodes tokens as `clip.encode_text` does, up to the longest text of a batch where what follows changes nothing.

    That is so where each token sees only those before it and the feature is taken at the end of the text, as in CLIP:
    captions then take a fraction of the time that the whole context length takes. Other towers, such as SigLIP's,
    encode the whole context length. Values and gradients are the same up to rounding. Nothing in the model is changed
    on the way, so several threads may encode at the same time.
    """

    def __init__(self, clip: Any) -> None:
        """Wrap open_clip's `CLIP` or `CustomTextCLIP`."""
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor, shorten: bool = True) -> Tensor:
        """Encode tokens.

        Args:
            tokens: int64 (T, context length); fewer columns where `looks_back_only`.
            shorten: Whether padding may be left out.

        Returns:
            Features (T, D), not normalised.
        """
        tower = getattr(self.clip, "text", self.clip)
        if looks_back_only(tower):
            length = tokens.shape[1]
            if shorten and len(tokens):
                # The end of the text has the highest number of all tokens.
                length = padded_length(int(tokens.argmax(dim=1).max()) + 1, length)
            if length < tower.context_length:
                return encode_shortened(tower, tokens[:, :length])
        features: Tensor = self.clip.encode_text(tokens)
        return features


def looks_back_only(tower: Any) -> bool:
    """Whether a token's feature depends on the tokens before it alone, and a text's feature is that of its end."""
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    other = ("use_pad_mask", "output_tokens")
    if any(getattr(tower, name, False) for name in other) or getattr(tower, "cls_emb", None) is not None:
        return False
    return pool == "argmax" and getattr(tower, "attn_mask", None) is not None


def encode_shortened(tower: Any, tokens: Tensor) -> Tensor:
    """The steps of open_clip's `CLIP.encode_text` and `TextTransformer.forward`, for fewer positions."""
    length, dtype = tokens.shape[1], tower.transformer.get_cast_dtype()
    embedded = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    encoded = tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask[:length, :length]))
    features: Tensor = text_global_pool(encoded, tokens, "argmax")
    projection = tower.text_projection
    if projection is None:
        return features
    projected: Tensor = projection(features) if isinstance(projection, nn.Linear) else features @ projection
    return projected
