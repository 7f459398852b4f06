"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# Parts of a query, of each kind; characters of a text and of an id.
MAX_PARTS: Final = 8
MAX_TEXT: Final = 1000
MAX_ID: Final = 4000
# Results that can be reached page by page, as offset + k.
MAX_DEPTH: Final = 2000
# Sides of the thumbnails that are made, in pixels.
THUMBNAIL_SIDES: Final = (64, 2048)
# A query's share of text in a mixed query without a balance or weights.
BALANCE: Final = 0.5


@dataclass(frozen=True)
class Settings:
    """Limits of one server.

    Attributes:
        token: What clients must show; None lets everybody in who reaches the server.
        hosts: Values of the `Host` header that are answered; None answers all. Without it, a page of another site whose
            name is made to lead to this machine could read from a server that needs no token.
        key: What clients of the same user on this machine show, to be told where images lie; see `mcip.server.local`.
        max_upload: Bytes of a request's body.
        max_pixels: Pixels of an uploaded image.
        max_file: Bytes of an indexed image's file that is sent, or decoded for a thumbnail.
        max_held: Bytes of all uploads at a time; and bytes of all images that lie in memory while they are sent, those
            from tables and object storage. Files of this machine are sent in chunks.
        max_k: Images per answer.
        max_waiting: Requests that have arrived and are worked on at the same time; more are sent away.
        max_connections: Open connections. With a file for each request that is worked on, they are fewer than the 1,024
            files that a process may usually have open.
        max_connections_per_address: Those of one client address: one of IPv4, or 64 bits of IPv6.
        seconds: Time for a request's header to arrive, for its body, for answering it, and for the client to take each
            16 kB of the answer.
        refresh_seconds: Time between two looks for a newer version of the table.
        batch_size: Texts or images per forward pass.
        window: Seconds that the first query of a batch waits for others, while the model is free.
        cached_texts: Texts whose embeddings are kept.
        cached_thumbnails: Bytes of made thumbnails that are kept.
    """

    token: str | None = None
    hosts: frozenset[str] | None = None
    key: str | None = None
    max_upload: int = 20_000_000
    max_pixels: int = 50_000_000
    max_file: int = 256_000_000
    max_held: int = 512_000_000
    max_k: int = 200
    max_waiting: int = 256
    max_connections: int = 600
    max_connections_per_address: int = 256
    seconds: float = 20.0
    refresh_seconds: float = 5.0
    batch_size: int = 64
    window: float = 0.003
    cached_texts: int = 10_000
    cached_thumbnails: int = 64_000_000

    def shared_by(self, processes: int) -> Settings:
        """The limits of each of several processes: its share of what all may take together."""
        names = (
            "max_held", "max_waiting", "max_connections", "max_connections_per_address", "cached_texts",
            "cached_thumbnails",
        )  # fmt: skip
        return replace(self, **{name: -(-getattr(self, name) // processes) for name in names})
