"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Parts of a query, of each kind; characters of a text and of a filter.
MAX_PARTS: Final = 8
MAX_TEXT: Final = 1000
# Results that can be reached page by page, as offset + k.
MAX_DEPTH: Final = 2000
# Sides of the thumbnails that are made, in pixels.
THUMBNAIL_SIDES: Final = (64, 2048)
# A query's share of text in a mixed query where nothing else is asked for.
BALANCE: Final = 0.5


@dataclass(frozen=True)
class Settings:
    """Limits of one server.

    Attributes:
        token: What clients must show; None lets everybody in who reaches the server.
        hosts: Values of the `Host` header that are answered; None answers all. Without it, a page of another site whose
            name is made to lead to this machine could read from a server that asks for no token.
        max_upload: Bytes of a request's body.
        max_pixels: Pixels of an uploaded picture.
        max_k: Pictures per answer.
        max_waiting: Requests that are worked on at the same time; more are sent away.
        seconds: Time for receiving a request, and again for answering it.
        refresh_seconds: Time between two looks for a newer version of the table.
        batch_size: Texts or pictures per forward pass.
        window: Seconds that the first query of a batch waits for others, while the model is free.
        cached_texts: Texts whose embeddings are kept.
        cached_thumbnails: Bytes of made thumbnails that are kept.
    """

    token: str | None = None
    hosts: frozenset[str] | None = None
    max_upload: int = 20_000_000
    max_pixels: int = 50_000_000
    max_k: int = 200
    max_waiting: int = 256
    seconds: float = 20.0
    refresh_seconds: float = 5.0
    batch_size: int = 64
    window: float = 0.003
    cached_texts: int = 10_000
    cached_thumbnails: int = 64_000_000
