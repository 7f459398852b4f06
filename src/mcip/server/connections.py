"""The connections of a server: how many there may be, and how long a client may take to send and to receive."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections import Counter
from typing import Any, ClassVar, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from mcip.server.settings import Settings

# Bytes that a client must take within `Settings.seconds` to keep receiving.
_SLOWEST: Final = 16_384
# Seconds that a refused client has to read why, before the connection is cut.
_LINGER: Final = 1.0
# Seconds that an answered connection stays open for another request.
_KEEP_ALIVE: Final = 5
# Bytes of a request's line and headers.
_MAX_HEADER: Final = 65_536


def http_server(app: ASGIApp, settings: Settings) -> uvicorn.Server:
    """A server of an application that keeps to the settings' limits of connections and times."""
    protocol = type("Connection", (Connection,), {"settings": settings, "per_address": Counter()})
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="on", log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=int(settings.seconds) + 1,
        h11_max_incomplete_event_size=_MAX_HEADER,
    )  # fmt: skip
    return uvicorn.Server(config)


class Connection(H11Protocol):
    """One connection.

    uvicorn bounds the time between requests only. Here a request's header must arrive in time as well, a client must
    take what is sent to it, and what is refused before there is a request is explained in the API's form.
    """

    settings: ClassVar[Settings]
    per_address: ClassVar[Counter[str]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._refused = False
        self._address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        # Whatever is not sent at once pauses the writing, so that the time to send it is bounded.
        transport.set_write_buffer_limits(high=0)
        self._address = _network(self.client[0] if self.client else "")
        self.per_address[self._address] += 1
        if self.per_address[self._address] > self.settings.max_connections_per_address:
            self._refuse(503, "Too many connections from your address: close some, or ask again in a moment.")
        elif len(self.connections) > self.settings.max_connections:
            self._refuse(503, "Too many connections: ask again in a moment.")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self.per_address[self._address] -= 1
        if self.per_address[self._address] <= 0:
            del self.per_address[self._address]
        self._stop_receiving()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if not self._refused:
            super().data_received(data)
            self._watch()

    def pause_writing(self) -> None:
        """Bound the time in which the client takes what waits to be sent."""
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        """Everything was sent."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        if len(self.conn.trailing_data[0]) >= _MAX_HEADER:
            self._refuse(431, f"The request's line and headers are too large: at most {_MAX_HEADER:,} bytes are read.")
        else:
            self._refuse(400, "This is not an HTTP request, or its body is not what its headers say.")

    def _watch(self) -> None:
        """Run a clock while a header, or a body that nobody reads, is being received."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self._refused or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_receiving()
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self.settings.seconds, self._too_slow)

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _too_slow(self) -> None:
        self._refuse(408, f"The request did not arrive within {self.settings.seconds:g} s.")

    def _expect_progress(self) -> None:
        waiting = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() > waiting - _SLOWEST:
                self.transport.abort()
            else:
                self._expect_progress()

        self._sending = self.loop.call_later(self.settings.seconds, check)

    def _refuse(self, status: int, detail: str) -> None:
        """Say why nothing more is read, and end the connection."""
        self._refused = True
        self._stop_receiving()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        content = json.dumps({"detail": detail}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
        headers += [("retry-after", "1")] * (status == 503)
        answer = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in (answer, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        # A connection that is closed while the client still sends is reset, and the client never reads the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER, self.transport.abort)


def _network(address: str) -> str:
    """What is taken for one client: an address of IPv4, the network part of one of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
