"""What is changed in a text tower for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mcip.models.model import Model


def unlock_text_tower(clip: Any, layers: int | None, grad_checkpointing: bool = False) -> None:
    """Let only the last layer groups of a text tower be trained, all of it where `layers` is None."""
    if layers is not None:
        clip.lock_text_tower(layers)
    if grad_checkpointing:
        getattr(clip, "text", clip).transformer.grad_checkpointing = True


def forget_unused_tokens(model: Model, texts: list[str]) -> None:
    """Zero the embeddings of the tokens that `texts` do not use: they are never trained, and zeros pack to nothing."""
    embedding = model.clip.get_submodule("token_embedding")
    assert isinstance(embedding, nn.Embedding)
    used = torch.zeros(embedding.num_embeddings, dtype=torch.bool)
    for start in range(0, len(texts), 4096):
        used[model.tokenizer(texts[start : start + 4096]).unique()] = True
    with torch.no_grad():
        embedding.weight[~used] = 0.0
