"""The sockets at which a server listens."""

from __future__ import annotations

import socket
import sys

from mcip.core.errors import ConfigError


def listen(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Sockets that listen at an address, among which Linux shares out the connections if there are several.

    Raises:
        ConfigError: The address is none, or taken, or there are several and this is not Linux.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"port is {port}: it must be from 0 to 65535.")
    first = _listen(host, port)
    if count == 1:
        return [first]
    if sys.platform != "linux":
        first.close()
        raise ConfigError(
            f"processes is {count}: only on Linux do several share an address. Start one server a port, behind a "
            "balancer."
        )
    # The first one has shown that nobody else listens here, of which sockets that share an address take no notice.
    port = first.getsockname()[1]
    first.close()
    return [_listen(host, port, shared=True) for _ in range(count)]


def address_of(host: str, listening: socket.socket) -> str:
    """What a browser opens."""
    name = f"[{host.strip('[]')}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}/"


def _listen(host: str, port: int, shared: bool = False) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{host} is no address to listen at: {error.strerror or error}.") from error
    try:
        if sys.platform != "win32":
            # A server that is started again gets its port back at once.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Port {port} of {host} cannot be taken ({error.strerror or error}): choose another --port."
        ) from error
    return listening
