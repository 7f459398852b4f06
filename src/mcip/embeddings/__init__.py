"""Embeddings: how they are made, stored and read."""

from mcip.embeddings.store import Embeddings

__all__ = ["Embeddings"]
